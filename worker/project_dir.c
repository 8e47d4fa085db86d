#include "worker/project_dir.h"

#include "common/fnv1a.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What tells one version of the file from another. */
struct version {
    bool exists;
    int error; /* why it cannot be looked at; 0 */
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec modified;
    struct timespec changed;
};

struct project_dir {
    struct event_base *base;
    char *path;
    char *file;
    struct project_store *store;
    struct version version; /* looked at last */
    struct project *project;
    bool is_current;
    struct environment_file *environment;
    struct skill_tree *skills;
    char *skills_path;     /* of the tree; "" when there is none */
    struct project *first; /* that this generation began with: its triggers and webhook count */
    struct trigger_set *triggers;
};

/* --- the file -------------------------------------------------------------------------------------------- */

static struct version look_at(const char *file)
{
    struct stat status;
    struct version version = {0}; /* compared as bytes */

    if (stat(file, &status) < 0) {
        version.error = errno != ENOENT ? errno : 0;
        return version;
    }
    version.exists = true;
    version.device = status.st_dev;
    version.inode = status.st_ino;
    version.size = status.st_size;
    version.modified = status.st_mtim;
    version.changed = status.st_ctim;
    return version;
}

static bool same_version(const struct version *left, const struct version *right)
{
    return left->exists == right->exists && left->error == right->error && left->device == right->device &&
           left->inode == right->inode && left->size == right->size &&
           left->modified.tv_sec == right->modified.tv_sec && left->modified.tv_nsec == right->modified.tv_nsec &&
           left->changed.tv_sec == right->changed.tv_sec && left->changed.tv_nsec == right->changed.tv_nsec;
}

/* One number for a version, never 0; two versions with the same one are not met. */
static uint64_t number_of(const struct version *version)
{
    const uint64_t parts[] = {version->exists,
                              (uint64_t)version->error,
                              (uint64_t)version->inode,
                              (uint64_t)version->size,
                              (uint64_t)version->modified.tv_sec,
                              (uint64_t)version->modified.tv_nsec,
                              (uint64_t)version->changed.tv_nsec};
    uint64_t number = FNV1A_START; /* FNV-1a over whole parts */

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        number = (number ^ parts[i]) * FNV1A_PRIME;
    return number | 1;
}

/* The whole file, one byte more than allowed at most: then it is too large. NULL with errno. */
static char *read_whole(const char *file, size_t *length)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = malloc(PROJECT_MAX_BYTES + 1);
    ssize_t got = 1;

    *length = 0;
    while (fd >= 0 && text != NULL && got > 0 && *length <= PROJECT_MAX_BYTES) {
        got = read(fd, text + *length, PROJECT_MAX_BYTES + 1 - *length);
        *length += got > 0 ? (size_t)got : 0;
    }
    if (fd >= 0 && text != NULL && got >= 0) {
        close(fd);
        return text;
    }
    if (fd >= 0)
        close(fd);
    free(text);
    return NULL;
}

/*
 * Where faults are told: broken is an error at a start, a warning while an older version is in use. What one process
 * has told, the others do not.
 */
struct reporting {
    const char *file;
    bool starting;
    bool quiet;
};

static void on_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    const struct reporting *reporting = context;
    char clean[LOG_CLEAN_BUFFER];

    if (reporting->quiet)
        return;
    log_clean(field, strlen(field), clean);
    if (is_warning)
        log_warn("%s: %s: %s", reporting->file, clean, reason);
    else if (reporting->starting)
        log_error("%s: %s%s%s", reporting->file, clean, *field != '\0' ? ": " : "", reason);
    else
        log_warn("%s: %s%s%s; the last good version stays in use", reporting->file, clean, *field != '\0' ? ": " : "",
                 reason);
}

/* Where the skills are; "" when there are none. The caller's. */
static char *resolve_skills(const char *path, const struct project *project)
{
    const char *given = project->skills_dir != NULL ? json_string_value(project->skills_dir) : "";
    char *resolved = NULL;

    if (*given == '\0' || *given == '/')
        return strdup(given);
    return asprintf(&resolved, "%s/%s", path, given) < 0 ? NULL : resolved;
}

static bool check_skills(const char *path, const struct project *project, const struct project_faults *faults)
{
    char *skills = resolve_skills(path, project);
    const char *reason;
    char text[128];
    bool good = true;

    if (skills != NULL && project->skills_dir != NULL && !skills_check(skills, &reason)) {
        snprintf(text, sizeof text, "cannot be read: %s", reason);
        faults->on_fault(faults->context, false, "skills_dir", text);
        good = false;
    }
    free(skills);
    return good && skills != NULL;
}

/* A version from its text. */
static struct project *take_text(const char *path, const char *text, size_t length, struct reporting *reporting)
{
    const struct project_faults faults = {.on_fault = on_fault, .context = reporting};
    struct project *project = project_parse(text, length, &faults);

    if (project == NULL || check_skills(path, project, &faults))
        return project;
    project_unref(project);
    return NULL;
}

/* The file's version now, put into the store when it is good. NULL after a log line. */
static struct project *take_file(const char *path, struct project_store *store, struct reporting *reporting)
{
    size_t length;
    char *text = read_whole(reporting->file, &length);
    struct project *project;

    if (text == NULL) {
        on_fault(reporting, false, "", strerror(errno));
        return NULL;
    }
    project = take_text(path, text, length, reporting);
    if (project != NULL)
        project_store_put(store, text, length, (int)project->runtime);
    free(text);
    return project;
}

/* What the workers of this generation use. */
static struct project *take_store(const char *path, struct project_store *store, struct reporting *reporting)
{
    char *text;
    size_t length;
    struct project *project = NULL;

    if (project_store_get(store, &text, &length) && text != NULL)
        project = take_text(path, text, length, reporting);
    free(text);
    return project;
}

/* Warnings were told when the file was taken. */
static void on_trigger_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    if (!is_warning)
        on_fault(context, false, field, reason);
}

/* The triggers of a version, with their secrets. NULL after faults were told. */
static struct trigger_set *make_triggers(const struct project *project, const struct environment *environment,
                                         struct reporting *reporting)
{
    const struct project_faults faults = {.on_fault = on_trigger_fault, .context = reporting};
    const char none[] = "[]";
    struct json_text array =
        project->triggers != NULL ? json_text_of(project->triggers) : (struct json_text){none, sizeof none - 1};

    return trigger_set_parse(array, environment, &faults);
}

bool project_dir_check(const char *path, const struct environment *environment, struct project_store *store)
{
    struct trigger_set *triggers;
    char file[PATH_MAX];
    struct reporting reporting = {.file = file, .starting = true};
    struct version version;
    struct project *project;

    snprintf(file, sizeof file, "%s/%s", path, PROJECT_FILE);
    version = look_at(file);
    if (!version.exists && version.error == 0) {
        project_store_put(store, NULL, 0, RUNTIME_AUTO);
        return true;
    }
    project = take_file(path, store, &reporting);
    if (project == NULL)
        return false;
    (void)!project_store_is_news(store, number_of(&version)); /* told */
    triggers = make_triggers(project, environment, &reporting);
    project_unref(project);
    trigger_set_free(triggers);
    return triggers != NULL;
}

enum runtime_choice project_dir_runtime(const struct project_dir *dir)
{
    return (enum runtime_choice)project_store_provider(dir->store);
}

/* --- changes ---------------------------------------------------------------------------------------------- */

/* A new version is in use: its skills too, if they are elsewhere. */
static void use(struct project_dir *dir, struct project *project)
{
    char *skills = resolve_skills(dir->path, project);
    struct skill_tree *tree;

    project_unref(dir->project);
    dir->project = project;
    if (skills == NULL || strcmp(skills, dir->skills_path) == 0) {
        free(skills);
        return;
    }
    tree = skill_tree_new(dir->base, skills);
    if (tree == NULL) {
        log_error("no memory for the skills: the old ones stay in use");
        free(skills);
        return;
    }
    skill_tree_free(dir->skills);
    free(dir->skills_path);
    dir->skills = tree;
    dir->skills_path = skills;
}

static bool same_text(const json_t *left, const json_t *right)
{
    return left == right || (left != NULL && right != NULL && json_equal(left, right));
}

/* What stays as it was when this generation began. */
static void warn_of_changes(const struct project_dir *dir, const struct project *project)
{
    static const char text[] = "a change takes effect with a reload";

    if (project->runtime != project_dir_runtime(dir))
        log_warn("%s: runtime: %s", dir->file, text);
    if (!same_text(project->triggers, dir->first->triggers))
        log_warn("%s: triggers: %s", dir->file, text);
    if (!same_text(project->webhook_url, dir->first->webhook_url))
        log_warn("%s: webhook_url: %s", dir->file, text);
}

/* Looks at the file, and takes a version that was not there at the last look. */
static void refresh(struct project_dir *dir)
{
    struct reporting reporting = {.file = dir->file};
    struct version version = look_at(dir->file);
    struct project *project;

    if (same_version(&version, &dir->version))
        return;
    dir->version = version;
    reporting.quiet = !project_store_is_news(dir->store, number_of(&version));
    if (!version.exists && version.error == 0) {
        if (!reporting.quiet)
            log_warn("%s is gone; the last good version stays in use until a reload", dir->file);
        dir->is_current = false;
        return;
    }
    project = take_file(dir->path, dir->store, &reporting);
    dir->is_current = project != NULL;
    if (project == NULL)
        return;
    if (!reporting.quiet)
        log_info("%s: a new version is in use", dir->file);
    if (!reporting.quiet)
        warn_of_changes(dir, project);
    use(dir, project);
}

/* What counts at the start of a worker. */
static struct project *first_version(struct project_dir *dir)
{
    struct reporting reporting = {.file = dir->file};
    struct project *project = NULL;

    dir->version = look_at(dir->file);
    reporting.quiet = !project_store_is_news(dir->store, number_of(&dir->version));
    dir->is_current = !dir->version.exists && dir->version.error == 0;
    if (!dir->is_current)
        project = take_file(dir->path, dir->store, &reporting);
    if (project != NULL) {
        dir->is_current = true;
        return project;
    }
    project = take_store(dir->path, dir->store, &reporting);
    if (project == NULL)
        return project_empty();
    dir->is_current = false; /* the file is gone or broken, the others go on with this one */
    return project;
}

/* What the generation began with; NULL for lack of memory. Told when it was checked. */
static struct project *generation_version(struct project_dir *dir, struct reporting *reporting)
{
    struct project *project = NULL;
    size_t length;
    char *text;

    if (project_store_get_first(dir->store, &text, &length) && text != NULL)
        project = take_text(dir->path, text, length, reporting);
    free(text);
    return project != NULL ? project : project_empty();
}

/* False for lack of memory. A secret's variable that is gone since the check costs the triggers, not the worker. */
static bool take_generation(struct project_dir *dir, const struct environment *environment)
{
    struct reporting reporting = {.file = dir->file, .quiet = true};
    struct project *none;

    dir->first = generation_version(dir, &reporting);
    if (dir->first == NULL)
        return false;
    reporting.quiet = false;
    dir->triggers = make_triggers(dir->first, environment, &reporting);
    if (dir->triggers != NULL)
        return true;
    none = project_empty();
    dir->triggers = none != NULL ? make_triggers(none, environment, &reporting) : NULL;
    project_unref(none);
    return dir->triggers != NULL;
}

/* --- life ------------------------------------------------------------------------------------------------- */

struct project_dir *project_dir_new(struct event_base *base, const char *path, struct project_store *store,
                                    struct environment *environment)
{
    struct project_dir *dir = calloc(1, sizeof *dir);
    struct project *project;

    if (dir == NULL)
        return NULL;
    dir->base = base;
    dir->store = store;
    dir->path = strdup(path);
    dir->skills_path = strdup("");
    dir->environment = environment_file_resume(path, environment);
    dir->skills = skill_tree_new(base, "");
    if (asprintf(&dir->file, "%s/%s", path, PROJECT_FILE) < 0)
        dir->file = NULL;
    if (dir->file != NULL && dir->path != NULL && dir->skills_path != NULL && dir->environment != NULL &&
        dir->skills != NULL && take_generation(dir, environment) && (project = first_version(dir)) != NULL) {
        use(dir, project);
        return dir;
    }
    project_dir_free(dir);
    return NULL;
}

void project_dir_free(struct project_dir *dir)
{
    if (dir == NULL)
        return;
    project_unref(dir->project);
    project_unref(dir->first);
    trigger_set_free(dir->triggers);
    skill_tree_free(dir->skills);
    environment_file_free(dir->environment);
    free(dir->skills_path);
    free(dir->path);
    free(dir->file);
    free(dir);
}

struct project_view project_dir_look(struct project_dir *dir)
{
    refresh(dir);
    return (struct project_view){.project = project_ref(dir->project),
                                 .environment = environment_current(dir->environment),
                                 .skills = skill_set_ref(skill_tree_current(dir->skills))};
}

void project_view_release(struct project_view *view)
{
    project_unref(view->project);
    environment_unref(view->environment);
    skill_set_unref(view->skills);
    *view = (struct project_view){0};
}

const struct trigger_set *project_dir_triggers(const struct project_dir *dir)
{
    return dir->triggers;
}

const char *project_dir_webhook_url(const struct project_dir *dir)
{
    return dir->first->webhook_url != NULL ? json_string_value(dir->first->webhook_url) : "";
}

const char *project_dir_path(const struct project_dir *dir)
{
    return dir->path;
}

bool project_dir_is_current(const struct project_dir *dir)
{
    return dir->is_current;
}
