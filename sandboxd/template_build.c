#include "sandboxd/template_build.h"

#include "sandboxd/program_run.h"
#include "sandboxd/template.h"
#include "sandboxd/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Longer than any path of ours below the template directory. */
#define PATH_BYTES (TEMPLATE_NAME_MAX_BYTES + 64)

/* One build on its way. */
struct build {
    const struct template_recipe *recipe;
    char work[PATH_BYTES]; /* beside the template's place: all that is half done */
    char tree[PATH_MAX];   /* in it: the template to be */
    char *manifest;
    size_t manifest_bytes;
};

static bool complain(const char *path)
{
    fprintf(stderr, "sandboxd: %s: %s\n", path, strerror(errno));
    return false;
}

/* --- one at a time ------------------------------------------------------------------------------ */

/* Locks a name: the lock lasts as long as this process, and a killed one leaves nothing to unlock. -1 with the reason.
 */
static int lock(const char *name)
{
    char path[PATH_BYTES];
    int fd;

    snprintf(path, sizeof path, ".%s.lock", name);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        fprintf(stderr, "sandboxd: waiting for another build of the template %s\n", name);
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
            ;
    }
    if (fd < 0)
        (void)complain(path);
    return fd;
}

/* Removes what builds that were killed have left. */
static bool clear_leftovers(const char *name)
{
    char pattern[PATH_BYTES];
    glob_t found = {0};
    bool cleared = true;

    snprintf(pattern, sizeof pattern, ".%s.new.*", name);
    if (glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++)
            cleared = tree_remove(found.gl_pathv[i]) && cleared;
        globfree(&found);
    }
    return cleared;
}

/* --- what it is made of ------------------------------------------------------------------------- */

/* The manifest's first part: the recipe, and the kind of machine. */
static void write_recipe(const struct template_recipe *recipe, FILE *out)
{
    struct utsname machine;

    uname(&machine);
    fprintf(out, "machine %s %s\n", machine.sysname, machine.machine);
    if (recipe->npm_lock != NULL)
        fprintf(out, "npm-lock\n");
    for (size_t i = 0; i < recipe->npm_count; i++)
        fprintf(out, "npm %s\n", recipe->npm[i]);
    for (size_t i = 0; i < recipe->apt_count; i++)
        fprintf(out, "apt %s\n", recipe->apt[i]);
    for (size_t i = 0; i < recipe->file_count; i++)
        fprintf(out, "file %s:%s\n", recipe->files[i].source, recipe->files[i].destination);
}

/* All of a file, to be freed, or NULL. */
static char *read_all(const char *folder, const char *name)
{
    char *path = NULL, *text = NULL;
    size_t size = 0;
    FILE *in = asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : fopen(path, "re");

    if (in != NULL && getdelim(&text, &size, '\0', in) < 0) {
        free(text);
        text = NULL;
    }
    if (in != NULL)
        fclose(in);
    free(path);
    return text;
}

static bool same_file(const char *a, const char *b, const char *name)
{
    char *first = read_all(a, name), *second = read_all(b, name);
    bool same = first != NULL && second != NULL && strcmp(first, second) == 0;

    free(first);
    free(second);
    return same;
}

/* Whether the template is what the build would make. Only lock files and exact versions say so: apt and files move. */
static bool is_current(const struct template_recipe *recipe)
{
    char *has = read_all(recipe->name, TEMPLATE_MANIFEST), *wants = NULL;
    size_t bytes;
    FILE *out = open_memstream(&wants, &bytes);
    bool current = has != NULL && out != NULL && recipe->apt_count == 0 && recipe->file_count == 0;

    if (out != NULL) {
        write_recipe(recipe, out);
        if (fclose(out) != 0)
            current = false;
    }
    current = current && strcmp(has, wants) == 0;
    for (size_t i = 0; i < recipe->npm_count; i++)
        current = current && recipe->npm[i][0] != '/';
    if (recipe->npm_lock != NULL) {
        /* What --npm added to it is not in the lock's own files. */
        for (size_t i = 0; i < sizeof template_lock_files / sizeof *template_lock_files; i++)
            current =
                current && recipe->npm_count == 0 && same_file(recipe->name, recipe->npm_lock, template_lock_files[i]);
    }
    free(has);
    free(wants);
    return current;
}

/* --- the build ---------------------------------------------------------------------------------- */

/* Leaves in tree/root only what a sandbox can be given: the rest of a package would be seen by nobody. */
static bool prune(const char *tree)
{
    static const char *const kept[] = {"usr", "etc", "opt", ".", ".."};
    static const char *const folders[] = {"", "etc", "opt"};

    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char *folder = NULL;
        DIR *dir = asprintf(&folder, "%s/root/%s", tree, folders[i]) < 0 ? NULL : opendir(folder);
        const struct dirent *entry;
        bool pruned = true;

        while (pruned && dir != NULL && (entry = readdir(dir)) != NULL) {
            char *seen = NULL, *path = NULL;
            bool keep = *folders[i] != '\0';

            for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)
                keep = keep || strcmp(entry->d_name, kept[k]) == 0;
            if (asprintf(&seen, "/%s/%s", folders[i], entry->d_name) < 0 ||
                asprintf(&path, "%s/%s", folder, entry->d_name) < 0)
                pruned = false;
            else if (!keep || template_path_is_reserved(seen))
                pruned = tree_remove(path);
            free(seen);
            free(path);
        }
        if (dir != NULL)
            closedir(dir);
        free(folder);
        if (!pruned)
            return false;
    }
    return true;
}

static bool write_manifest(const struct build *build)
{
    char *path = NULL;
    FILE *out = asprintf(&path, "%s/" TEMPLATE_MANIFEST, build->tree) < 0 ? NULL : fopen(path, "we");
    bool written;

    written = out != NULL && fwrite(build->manifest, 1, build->manifest_bytes, out) == build->manifest_bytes;
    if (out != NULL && fclose(out) != 0)
        written = false;
    if (!written)
        (void)complain(path);
    free(path);
    return written;
}

/* Puts the tree in its place: from one moment to the next where there is an old one, which is then in work. */
static bool put_in_place(const struct build *build)
{
    const char *place = build->recipe->name;

    if (program_run_was_interrupted()) {
        fprintf(stderr, "sandboxd: interrupted\n");
        return false;
    }
    return renameat2(AT_FDCWD, build->tree, AT_FDCWD, place, RENAME_EXCHANGE) == 0 ||
           (errno == ENOENT && rename(build->tree, place) == 0) || complain(place);
}

/* Makes a folder in work and gives its absolute path, which other programs want. */
static bool make_folder(const struct build *build, const char *name, char path[static PATH_MAX])
{
    char relative[PATH_BYTES * 2];

    snprintf(relative, sizeof relative, "%s/%s", build->work, name);
    return (mkdir(relative, 0755) == 0 && realpath(relative, path) != NULL) || complain(relative);
}

/* Everything in the work folder, up to the last rename. */
static bool fill(struct build *build)
{
    char downloads[PATH_MAX];
    FILE *manifest = open_memstream(&build->manifest, &build->manifest_bytes);
    bool filled;

    if (manifest == NULL)
        return complain(build->work);
    write_recipe(build->recipe, manifest);
    filled = make_folder(build, "template", build->tree) && make_folder(build, "debs", downloads) &&
             template_install_npm(build->recipe, build->tree) &&
             template_install_apt(build->recipe, build->tree, downloads, manifest) &&
             template_install_files(build->recipe, build->tree) && prune(build->tree);
    if (fclose(manifest) != 0)
        filled = false;
    return filled && write_manifest(build) && tree_seal(build->tree) && put_in_place(build);
}

static bool build_locked(const struct template_recipe *recipe)
{
    struct build build = {.recipe = recipe};
    bool built;

    if (is_current(recipe)) {
        printf("sandboxd: the template %s is up to date\n", recipe->name);
        return true;
    }
    snprintf(build.work, sizeof build.work, ".%s.new.XXXXXX", recipe->name);
    if (!clear_leftovers(recipe->name))
        return false;
    if (mkdtemp(build.work) == NULL)
        return complain(build.work);
    built = fill(&build);
    free(build.manifest);
    built = tree_remove(build.work) && built;
    if (built)
        printf("sandboxd: the template %s is built\n", recipe->name);
    else
        fprintf(stderr, "sandboxd: the template %s was not built\n", recipe->name);
    return built;
}

bool template_build(const struct template_recipe *recipe)
{
    int fd = lock(recipe->name);
    bool built = fd >= 0 && build_locked(recipe);

    if (fd >= 0)
        close(fd);
    return built;
}

bool template_remove(const char *name)
{
    char work[PATH_BYTES];
    int fd = lock(name);
    bool removed = false;

    if (fd < 0)
        return false;
    snprintf(work, sizeof work, ".%s.new.removed", name);
    if (!clear_leftovers(name))
        removed = false;
    else if (rename(name, work) == 0)
        removed = tree_remove(work);
    else if (errno == ENOENT)
        fprintf(stderr, "sandboxd: there is no template %s to be removed\n", name);
    else
        (void)complain(name);
    close(fd);
    return removed;
}

/* One template's line and, indented, what it was made of. */
static void list_one(const char *name, FILE *out)
{
    char *manifest = read_all(name, TEMPLATE_MANIFEST), *rest = manifest;
    const char *line;

    fprintf(out, "%s\n", name);
    while ((line = strsep(&rest, "\n")) != NULL) {
        if (*line != '\0')
            fprintf(out, "  %s\n", line);
    }
    free(manifest);
}

static int is_template(const struct dirent *entry)
{
    struct stat found;

    return template_name_is_valid(entry->d_name) && stat(entry->d_name, &found) == 0 && S_ISDIR(found.st_mode);
}

bool template_list(FILE *out)
{
    struct dirent **entries = NULL;
    int count = scandir(".", &entries, is_template, alphasort);
    bool has_base = false;

    if (count < 0)
        return complain(".");
    for (int i = 0; i < count; i++) {
        has_base = has_base || strcmp(entries[i]->d_name, TEMPLATE_BASE) == 0;
        list_one(entries[i]->d_name, out);
        free(entries[i]);
    }
    free(entries);
    if (!has_base)
        fprintf(out, TEMPLATE_BASE "\n  nothing: this machine's /usr\n");
    return true;
}
