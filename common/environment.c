#include "common/environment.h"

#include "common/dotenv.h"
#include "common/log.h"
#include "common/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define DOTENV_NAME "/.env"
/* Warnings about lines of one version of the file: what is no `.env` at all must not fill the log. */
#define LINE_WARNINGS_MAX 10
/* Two steps of the coarsest clock of file times: a change so soon after another may leave all of the status as it was.
 */
#define SETTLED_MS 20

struct environment {
    unsigned references;
    struct key_files *keys; /* NULL: none */
    struct dotenv *values;  /* of the file; NULL: none */
};

struct environment_file {
    char *path;
    struct environment *current;
    struct stat seen;      /* of the version that was looked at last; all zero: there was no file */
    bool settled;          /* a later version will differ from `seen` */
    const char *complaint; /* why that version is not the one in use; NULL: it is */
};

/* --- one state -------------------------------------------------------------------------------------- */

/* Takes the values over, also for lack of memory. */
static struct environment *environment_new(struct dotenv *values, struct key_files *keys)
{
    struct environment *environment = calloc(1, sizeof *environment);

    if (environment == NULL) {
        dotenv_unref(values);
        return NULL;
    }
    environment->references = 1;
    environment->keys = key_files_ref(keys);
    environment->values = values;
    return environment;
}

struct environment *environment_with_keys(const struct environment *environment, struct key_files *keys)
{
    return environment_new(dotenv_ref(environment->values), keys);
}

struct environment *environment_ref(struct environment *environment)
{
    environment->references++;
    return environment;
}

void environment_unref(struct environment *environment)
{
    if (environment == NULL || --environment->references > 0)
        return;
    dotenv_unref(environment->values);
    key_files_unref(environment->keys);
    free(environment);
}

const char *environment_get(const struct environment *environment, const char *name)
{
    const char *value = getenv(name);

    if (value == NULL && environment->keys != NULL)
        value = key_files_get(environment->keys, name);
    return value != NULL || environment->values == NULL ? value : dotenv_get(environment->values, name);
}

const char *environment_value(const struct environment *environment, const char *name)
{
    const char *value = environment_get(environment, name);

    return value != NULL && *value != '\0' ? value : NULL;
}

/* --- the file --------------------------------------------------------------------------------------- */

/* The values that python-dotenv knows: whoever turns it off for the one turns it off for the other. */
static bool is_disabled(void)
{
    static const char *const yes[] = {"1", "true", "t", "yes", "y"};
    const char *value = getenv("PYTHON_DOTENV_DISABLED");

    for (size_t i = 0; value != NULL && i < sizeof yes / sizeof *yes; i++) {
        if (strcasecmp(value, yes[i]) == 0)
            return true;
    }
    return false;
}

static bool is_same_version(const struct stat *left, const struct stat *right)
{
    return left->st_dev == right->st_dev && left->st_ino == right->st_ino && left->st_size == right->st_size &&
           left->st_mtim.tv_sec == right->st_mtim.tv_sec && left->st_mtim.tv_nsec == right->st_mtim.tv_nsec &&
           left->st_ctim.tv_sec == right->st_ctim.tv_sec && left->st_ctim.tv_nsec == right->st_ctim.tv_nsec;
}

static bool is_settled(const struct stat *status)
{
    struct timespec now;
    int64_t age_ms;

    clock_gettime(CLOCK_REALTIME, &now);
    age_ms = (now.tv_sec - status->st_ctim.tv_sec) * 1000LL + (now.tv_nsec - status->st_ctim.tv_nsec) / 1000000;
    return age_ms > SETTLED_MS;
}

struct bad_lines {
    const char *path;
    bool told; /* this version's were logged before */
    size_t count;
};

static void on_bad_line(size_t line, void *context)
{
    struct bad_lines *bad = context;

    if (++bad->count <= LINE_WARNINGS_MAX && !bad->told)
        log_warn("%s:%zu: not understood, skipped", bad->path, line);
}

/* NULL with *complaint. */
static struct dotenv *parse_file(const char *path, int fd, bool told, const char **complaint)
{
    struct bad_lines bad = {.path = path, .told = told};
    struct dotenv *values;
    size_t length;
    char *text = small_file_read_from(fd, DOTENV_TEXT_MAX_BYTES, &length, complaint);

    if (text == NULL)
        return NULL;
    values = dotenv_parse(text, length, on_bad_line, &bad);
    if (values == NULL)
        *complaint = strerrordesc_np(errno);
    small_file_free(text, length);
    if (bad.count > LINE_WARNINGS_MAX && !told)
        log_warn("%s: %zu more lines not understood, skipped", path, bad.count - LINE_WARNINGS_MAX);
    return values;
}

/* The file as a state, and the status of what was read; NULL with *complaint. */
static struct environment *read_file(const struct environment_file *file, struct stat *status, const char **complaint)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct environment *environment = NULL;
    struct dotenv *values = NULL;

    *complaint = NULL;
    if (fd < 0 || fstat(fd, status) < 0)
        *complaint = strerrordesc_np(errno);
    else
        values = parse_file(file->path, fd, is_same_version(status, &file->seen), complaint);
    if (fd >= 0)
        close(fd);
    if (*complaint == NULL && (environment = environment_new(values, file->current->keys)) == NULL)
        *complaint = strerrordesc_np(ENOMEM);
    return environment;
}

/* The values are gone with the file. */
static struct environment *read_nothing(const struct environment_file *file, const char **complaint)
{
    struct environment *environment = environment_new(NULL, file->current->keys);

    *complaint = environment != NULL ? NULL : strerrordesc_np(ENOMEM);
    return environment;
}

/* Looks at the file, whose status is *status, and says so if what it says cannot be used. */
static void look(struct environment_file *file, struct stat *status, int error)
{
    const char *complaint = error != 0 && error != ENOENT ? strerrordesc_np(error) : NULL;
    struct environment *fresh = NULL;

    if (error == ENOENT)
        fresh = read_nothing(file, &complaint);
    else if (error == 0)
        fresh = read_file(file, status, &complaint);
    if (fresh != NULL) {
        environment_unref(file->current);
        file->current = fresh;
    } else if (file->complaint == NULL || strcmp(complaint, file->complaint) != 0 ||
               !is_same_version(status, &file->seen)) {
        log_warn("cannot read %s: %s; the values read before stay in use", file->path, complaint);
    }
    file->complaint = complaint;
    file->seen = *status;
    file->settled = error == ENOENT || is_settled(status);
}

/* One stat(2) when there is nothing new. What could not be read is tried again: permissions come back unseen. */
static void refresh(struct environment_file *file)
{
    struct stat status = {0};
    int error = stat(file->path, &status) < 0 ? errno : 0;

    if (error != 0)
        status = (struct stat){0};
    if (file->complaint == NULL && file->settled && is_same_version(&status, &file->seen))
        return;
    look(file, &status, error);
}

struct environment_file *environment_file_resume(const char *project_dir, struct environment *last_good)
{
    struct environment_file *file = calloc(1, sizeof *file);

    if (file == NULL)
        return NULL;
    file->current = environment_ref(last_good);
    if (asprintf(&file->path, "%s" DOTENV_NAME, project_dir) < 0) {
        file->path = NULL;
        environment_file_free(file);
        return NULL;
    }
    if (!is_disabled())
        refresh(file);
    return file;
}

struct environment_file *environment_file_new(const char *project_dir)
{
    struct environment *nothing = environment_new(NULL, NULL);
    struct environment_file *file = nothing != NULL ? environment_file_resume(project_dir, nothing) : NULL;

    environment_unref(nothing);
    return file;
}

void environment_file_free(struct environment_file *file)
{
    if (file == NULL)
        return;
    environment_unref(file->current);
    free(file->path);
    free(file);
}

struct environment *environment_current(struct environment_file *file)
{
    if (!is_disabled())
        refresh(file);
    return environment_ref(file->current);
}
