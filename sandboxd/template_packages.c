/* template_packages: npm, apt, dpkg-deb and cp, each run with an argument vector and as few rights as it needs. */
#include "sandboxd/program_run.h"
#include "sandboxd/template.h"
#include "sandboxd/template_build.h"
#include "sandboxd/tree.h"

#include <errno.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* An argument vector that grows; ends with NULL. */
struct arguments {
    const char *values[TEMPLATE_PARTS_MAX + 32];
    size_t count;
};

static void add(struct arguments *arguments, const char *const *values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        arguments->values[arguments->count++] = values[i];
}

#define ADD(arguments, ...)                                                                                            \
    add(arguments, (const char *const[]){__VA_ARGS__},                                                                 \
        sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

static bool complain(const char *path)
{
    fprintf(stderr, "sandboxd: %s: %s\n", path, strerror(errno));
    return false;
}

/* A program that may write below one folder of the host and nowhere else, whatever links it meets; no network. */
static void confine(struct arguments *arguments, const char *writable)
{
    ADD(arguments, "/usr/bin/bwrap", "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev",
        "--bind", writable, writable, "--");
}

/* --- npm ---------------------------------------------------------------------------------------- */

const char *const template_lock_files[3] = {"package.json", "package-lock.json", ".npmrc"};

static bool copy_lock(const char *from, const char *tree)
{
    for (size_t i = 0; i < sizeof template_lock_files / sizeof *template_lock_files; i++) {
        struct arguments copy = {0};
        char *source = NULL;
        bool copied = asprintf(&source, "%s/%s", from, template_lock_files[i]) >= 0;

        ADD(&copy, "cp", "--", source, tree);
        copied = copied && program_run(copy.values, NULL);
        free(source);
        if (!copied)
            return false;
    }
    return true;
}

/* npm looks for a package.json upwards from where it is: here it finds one. */
static bool write_package_json(const char *tree)
{
    char *path = NULL;
    FILE *out = asprintf(&path, "%s/package.json", tree) < 0 ? NULL : fopen(path, "we");
    bool written = out != NULL && fputs("{\"private\": true}\n", out) >= 0;

    if (out != NULL && fclose(out) != 0)
        written = false;
    if (!written)
        (void)complain(path != NULL ? path : tree);
    free(path);
    return written;
}

/* Old npm does not look at the C library a package asks for and brings both: those for musl are of no use here. */
static bool drop_musl_packages(const char *tree)
{
    char *pattern = NULL;
    glob_t found = {0};
    bool dropped = asprintf(&pattern, "%s/node_modules/@*/*-musl", tree) >= 0;

    if (dropped && glob(pattern, 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc && dropped; i++)
            dropped = tree_remove(found.gl_pathv[i]);
        globfree(&found);
    }
    free(pattern);
    return dropped;
}

bool template_install_npm(const struct template_recipe *recipe, const char *tree)
{
    static const char *const pinned[] = {
        "npm", "ci", "--omit=dev", "--ignore-scripts", "--prefer-offline", "--loglevel=error", NULL};
    struct arguments named = {0};

    if (recipe->npm_lock == NULL && recipe->npm_count == 0)
        return true;
    if (recipe->npm_lock != NULL && (!copy_lock(recipe->npm_lock, tree) || !program_run(pinned, tree)))
        return false;
    if (recipe->npm_lock == NULL && !write_package_json(tree))
        return false;
    ADD(&named, "npm", "install", "--omit=dev", "--ignore-scripts", "--install-links", "--save-exact", "--no-audit",
        "--no-fund", "--no-update-notifier", "--loglevel=error", "--");
    add(&named, recipe->npm, recipe->npm_count);
    return (recipe->npm_count == 0 || program_run(named.values, tree)) && drop_musl_packages(tree);
}

/* --- apt ---------------------------------------------------------------------------------------- */

/* Debian's packages may still name the old places of what is in /usr. */
static const char *const merged[] = {"bin", "sbin", "lib", "lib32", "lib64", "libx32"};

/* Makes tree/root, if need be, and gives its path, to be freed; NULL with the reason printed. */
static char *make_root(const char *tree)
{
    char *root = NULL;

    if (asprintf(&root, "%s/root", tree) < 0)
        return NULL;
    if (mkdir(root, 0755) == 0 || errno == EEXIST)
        return root;
    (void)complain(root);
    free(root);
    return NULL;
}

/* Moves what was unpacked into an old place to where it is in a sandbox. */
static bool merge(const char *root, const char *old)
{
    struct arguments copying = {0};
    char *from = NULL, *to = NULL;
    struct stat found;
    bool done = asprintf(&from, "%s/%s", root, old) >= 0 && asprintf(&to, "%s/usr/%s", root, old) >= 0;

    if (done && lstat(from, &found) == 0) {
        confine(&copying, root);
        ADD(&copying, "cp", "-a", "-T", "--", from, to);
        done = program_run(copying.values, NULL) && tree_remove(from);
    }
    free(from);
    free(to);
    return done;
}

/* Has apt choose and fetch what this machine lacks of the packages; it checks their signatures. Nothing is installed.
 */
static bool download(const struct template_recipe *recipe, const char *downloads)
{
    struct arguments fetch = {0};
    char *archives = NULL, *partial = NULL;
    bool fetched = asprintf(&archives, "Dir::Cache::archives=%s", downloads) >= 0 &&
                   asprintf(&partial, "%s/partial", downloads) >= 0;

    if (fetched && mkdir(partial, 0755) < 0)
        fetched = complain(partial);
    ADD(&fetch, "apt-get", "install", "-qq", "-y", "--download-only", "--no-install-recommends", "--no-remove", "-o",
        archives, "-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root", "--");
    add(&fetch, recipe->apt, recipe->apt_count);
    if (fetched && !program_run(fetch.values, NULL)) {
        fprintf(stderr, "sandboxd: apt-get could not fetch the packages (are its lists there? apt-get update)\n");
        fetched = false;
    }
    free(archives);
    free(partial);
    return fetched;
}

/* Unpacks one package. */
static bool unpack(const char *package, const char *root)
{
    struct arguments unpacking = {0};

    confine(&unpacking, root);
    ADD(&unpacking, "dpkg-deb", "--extract", package, root);
    return program_run(unpacking.values, NULL);
}

/* Unpacks all that was downloaded, and tells the manifest. */
static bool unpack_all(const char *downloads, const char *root, FILE *manifest)
{
    char *pattern = NULL, *usr = NULL;
    glob_t found = {0};
    bool done = asprintf(&pattern, "%s/*.deb", downloads) >= 0 && asprintf(&usr, "%s/usr", root) >= 0;

    if (done && glob(pattern, 0, NULL, &found) != 0)
        printf(
            "sandboxd: nothing was fetched: these packages are on this machine, and sandboxes see them in its /usr\n");
    else if (done && mkdir(usr, 0755) < 0)
        done = complain(usr);
    for (size_t i = 0; i < found.gl_pathc && done; i++) {
        done = unpack(found.gl_pathv[i], root);
        fprintf(manifest, "unpacked %s\n", strrchr(found.gl_pathv[i], '/') + 1);
    }
    for (size_t i = 0; i < sizeof merged / sizeof *merged && done; i++)
        done = merge(root, merged[i]);
    globfree(&found);
    free(pattern);
    free(usr);
    return done;
}

bool template_install_apt(const struct template_recipe *recipe, const char *tree, const char *downloads, FILE *manifest)
{
    char *root;
    bool installed;

    if (recipe->apt_count == 0)
        return true;
    root = make_root(tree);
    installed = root != NULL && download(recipe, downloads) && unpack_all(downloads, root, manifest);
    free(root);
    return installed;
}

/* --- files -------------------------------------------------------------------------------------- */

/* Copies a file or folder to its place, where nothing may be yet. */
static bool copy(const char *source, const char *destination, const char *root)
{
    struct arguments parents = {0}, copying = {0};
    char *target = NULL, *folder = NULL;
    struct stat there;
    bool copied = asprintf(&target, "%s%s", root, destination) >= 0 && (folder = strdup(target)) != NULL;

    if (copied && lstat(target, &there) == 0) {
        fprintf(stderr, "sandboxd: --file: %s is there already\n", destination);
        copied = false;
    }
    if (copied) {
        *strrchr(folder, '/') = '\0';
        confine(&parents, root);
        ADD(&parents, "mkdir", "-p", "--", folder);
        confine(&copying, root);
        ADD(&copying, "cp", "-R", "-T", "--preserve=mode,timestamps", "--", source, target);
        copied = program_run(parents.values, NULL) && program_run(copying.values, NULL);
    }
    free(target);
    free(folder);
    return copied;
}

bool template_install_files(const struct template_recipe *recipe, const char *tree)
{
    char *root = recipe->file_count == 0 ? NULL : make_root(tree);
    bool installed = root != NULL || recipe->file_count == 0;

    for (size_t i = 0; i < recipe->file_count && installed; i++)
        installed = copy(recipe->files[i].source, recipe->files[i].destination, root);
    free(root);
    return installed;
}
