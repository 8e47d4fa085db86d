#include "worker/skills.h"

#include "common/fnv1a.h"
#include "common/log.h"
#include "worker/skill_walk.h"
#include "worker/timer.h"
#include "worker/utf8.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHECK_INTERVAL_MS 1000
/* A change this young may be followed by another one that leaves the same time behind: clocks of file systems tick. */
#define YOUNG_NS     100000000LL
#define WARNINGS_MAX 20
#define READ_BYTES   (64u << 10)

struct skill_tree {
    char *dir; /* "" for none */
    struct event *timer;
    struct skill_set *set;
    uint64_t signature; /* of what was read; 0: to be read whatever it looks like */
    uint64_t report;    /* what was said about it */
    int failure;        /* errno of the last check, to be said once */
};

/* Tells states of a tree apart, and reports. */
static uint64_t hash_text(uint64_t hash, const char *text)
{
    return fnv1a(hash, text, strlen(text) + 1);
}

static uint64_t hash_number(uint64_t hash, uint64_t number)
{
    hash = (hash ^ number) * FNV1A_PRIME;
    return hash ^ (hash >> 32);
}

/* --- sets -------------------------------------------------------------------------------------------- */

static void skill_release(struct skill *skill)
{
    for (size_t i = 0; i < skill->file_count; i++) {
        free(skill->files[i].path);
        free(skill->files[i].bytes);
    }
    free(skill->files);
    free(skill->name);
}

static struct skill_set *skill_set_new(void)
{
    struct skill_set *set = calloc(1, sizeof *set);

    if (set != NULL)
        set->references = 1;
    return set;
}

const struct skill_set *skill_set_ref(const struct skill_set *set)
{
    ((struct skill_set *)set)->references++;
    return set;
}

void skill_set_unref(const struct skill_set *set)
{
    struct skill_set *own = (struct skill_set *)set;

    if (own == NULL || --own->references > 0)
        return;
    for (size_t i = 0; i < own->count; i++)
        skill_release(&own->skills[i]);
    free(own->skills);
    free(own);
}

/* Room for one more element, zeroed; NULL for lack of memory. Grows when count is a power of two. */
static void *append(void *elements_pointer, size_t count, size_t size)
{
    char **elements = elements_pointer;

    if ((count & (count - 1)) == 0) {
        char *grown = reallocarray(*elements, count > 0 ? count * 2 : 1, size);

        if (grown == NULL)
            return NULL;
        *elements = grown;
    }
    return memset(*elements + count * size, 0, size);
}

/* --- reading ----------------------------------------------------------------------------------------- */

struct reading {
    struct skill_set *set;
    size_t bytes;
    size_t files;
    int failure; /* errno; the reading is void then */
    char *warnings[WARNINGS_MAX];
    size_t warning_count; /* may be more than are kept */
};

static void on_skip(void *context, const char *path, const char *reason)
{
    struct reading *reading = context;
    char clean[LOG_CLEAN_BUFFER];
    size_t index = reading->warning_count++;

    if (index < WARNINGS_MAX &&
        asprintf(&reading->warnings[index], "%s: skipped: %s", log_clean(path, strlen(path), clean), reason) < 0) {
        reading->warnings[index] = NULL;
        reading->failure = ENOMEM;
    }
}

/* The whole of a file up to a limit; *length over the limit means that it has more. NULL with errno. */
static char *read_whole(int fd, size_t expected, size_t limit, size_t *length)
{
    size_t size = (expected < limit ? expected : limit) + 1;
    char *bytes = malloc(size);
    size_t used = 0;

    while (bytes != NULL) {
        ssize_t got = read(fd, bytes + used, size - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            break;
        used += (size_t)got;
        *length = used;
        if (got == 0 || used > limit)
            return bytes;
        /* The one spare byte is used up: the file grew meanwhile. */
        if (used == size) {
            char *grown = realloc(bytes, size + READ_BYTES);

            if (grown == NULL)
                break;
            bytes = grown;
            size += READ_BYTES;
        }
    }
    free(bytes);
    return NULL;
}

/* The skill a path of the walk belongs to; they come one after the other. NULL for lack of memory. */
static struct skill *skill_of(struct skill_set *set, const char *path, size_t name_length)
{
    struct skill *last = set->count > 0 ? &set->skills[set->count - 1] : NULL;
    struct skill *added;

    if (last != NULL && strlen(last->name) == name_length && memcmp(last->name, path, name_length) == 0)
        return last;
    added = append(&set->skills, set->count, sizeof *added);
    if (added == NULL || (added->name = strndup(path, name_length)) == NULL)
        return NULL;
    set->count++;
    return added;
}

/* Takes the bytes over. */
static void keep_file(struct reading *reading, const char *path, char *bytes, size_t length)
{
    size_t name_length = strcspn(path, "/");
    struct skill *skill = skill_of(reading->set, path, name_length);
    struct skill_file *file = skill != NULL ? append(&skill->files, skill->file_count, sizeof *file) : NULL;

    if (file == NULL || (file->path = strdup(path + name_length + 1)) == NULL) {
        reading->failure = ENOMEM;
        free(bytes);
        return;
    }
    file->bytes = bytes;
    file->length = length;
    skill->file_count++;
    reading->bytes += length;
    reading->files++;
}

static void on_file(void *context, const struct skill_entry *entry)
{
    struct reading *reading = context;
    size_t room = SKILL_SET_MAX_BYTES - reading->bytes;
    size_t length = 0;
    char *bytes;
    int fd;

    if (reading->files >= SKILL_SET_MAX_FILES) {
        on_skip(reading, entry->path, "the skills have more than 2000 files");
        return;
    }
    fd = skill_entry_open(entry);
    bytes = fd >= 0 ? read_whole(fd, (size_t)entry->status.st_size, room, &length) : NULL;
    if (bytes == NULL && skill_failure_is_ours(errno))
        reading->failure = errno;
    else if (bytes == NULL && errno != ENOENT)
        on_skip(reading, entry->path, strerror(errno));
    else if (bytes != NULL && length > room)
        on_skip(reading, entry->path, "the skills are larger than 20 MiB");
    else if (bytes != NULL && !utf8_is_valid(bytes, length))
        on_skip(reading, entry->path, "not UTF-8");
    else if (bytes != NULL) {
        keep_file(reading, entry->path, bytes, length);
        bytes = NULL;
    }
    free(bytes);
    if (fd >= 0)
        close(fd);
}

static bool has_main_file(const struct skill *skill)
{
    for (size_t i = 0; i < skill->file_count; i++) {
        if (strcmp(skill->files[i].path, SKILL_MAIN_FILE) == 0)
            return true;
    }
    return false;
}

/* A skill whose SKILL.md was skipped is none. */
static void drop_incomplete(struct reading *reading)
{
    struct skill_set *set = reading->set;
    size_t kept = 0;

    for (size_t i = 0; i < set->count; i++) {
        if (has_main_file(&set->skills[i])) {
            set->skills[kept++] = set->skills[i];
            continue;
        }
        on_skip(reading, set->skills[i].name, "its " SKILL_MAIN_FILE " was skipped");
        skill_release(&set->skills[i]);
    }
    set->count = kept;
}

static uint64_t report_hash(const struct reading *reading)
{
    uint64_t hash = FNV1A_START;

    for (size_t i = 0; i < WARNINGS_MAX && reading->warnings[i] != NULL; i++)
        hash = hash_text(hash, reading->warnings[i]);
    hash = hash_number(hash, reading->warning_count);
    hash = hash_number(hash, reading->set->count);
    hash = hash_number(hash, reading->files);
    return hash_number(hash, reading->bytes);
}

/* Says what was found, unless the same was said last. */
static void report(struct skill_tree *tree, const struct reading *reading)
{
    uint64_t hash = report_hash(reading);

    if (hash == tree->report)
        return;
    tree->report = hash;
    log_info("skills: %zu with %zu files, %zu bytes, from %s", reading->set->count, reading->files, reading->bytes,
             tree->dir);
    for (size_t i = 0; i < WARNINGS_MAX && reading->warnings[i] != NULL; i++)
        log_warn("skills: %s", reading->warnings[i]);
    if (reading->warning_count > WARNINGS_MAX)
        log_warn("skills: %zu more were skipped", reading->warning_count - WARNINGS_MAX);
}

/* 0 when the set is the new one, else errno and nothing has changed. */
static int read_tree(struct skill_tree *tree)
{
    struct reading reading = {.set = skill_set_new()};
    const struct skill_visitor visitor = {.on_file = on_file, .on_skip = on_skip, .context = &reading};
    int failure = reading.set != NULL ? skill_walk(tree->dir, &visitor) : ENOMEM;

    if (failure == 0)
        drop_incomplete(&reading);
    if (failure == 0)
        failure = reading.failure;
    if (failure == 0) {
        report(tree, &reading);
        skill_set_unref(tree->set);
        tree->set = reading.set;
        reading.set = NULL;
    }
    for (size_t i = 0; i < WARNINGS_MAX; i++)
        free(reading.warnings[i]);
    skill_set_unref(reading.set);
    return failure;
}

/* --- watching ---------------------------------------------------------------------------------------- */

struct look {
    uint64_t signature;
    int64_t now_ns;
    bool young;
};

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void on_status(void *context, const char *path, const struct stat *status)
{
    struct look *look = context;
    /* The change time catches what keeps the modification time: a permission, an archive laid over the file. */
    const int64_t facts[] = {(int64_t)status->st_dev, (int64_t)status->st_ino, status->st_size,
                             nanoseconds(status->st_mtim), nanoseconds(status->st_ctim)};
    int64_t age_ns = look->now_ns - nanoseconds(status->st_ctim);

    look->signature = hash_text(look->signature, path);
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++)
        look->signature = hash_number(look->signature, (uint64_t)facts[i]);
    look->young = look->young || (age_ns >= 0 && age_ns < YOUNG_NS);
}

static void say_failure(struct skill_tree *tree, int failure)
{
    if (failure != 0 && failure != tree->failure)
        log_warn("skills: %s cannot be read: %s; the last good skills stay in use", tree->dir, strerror(failure));
    tree->failure = failure;
}

void skill_tree_check(struct skill_tree *tree)
{
    struct look look = {.signature = FNV1A_START};
    const struct skill_visitor visitor = {.on_status = on_status, .context = &look};
    struct timespec now;
    int failure;

    if (*tree->dir == '\0')
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    look.now_ns = nanoseconds(now);
    failure = skill_walk(tree->dir, &visitor);
    if (failure == 0 && look.signature != tree->signature) {
        /* The look comes first: what changes while we read differs at the next look. */
        failure = read_tree(tree);
        tree->signature = failure == 0 && !look.young ? look.signature : 0;
    }
    say_failure(tree, failure);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    skill_tree_check(context);
}

/* --- life -------------------------------------------------------------------------------------------- */

struct skill_tree *skill_tree_new(struct event_base *base, const char *dir)
{
    struct skill_tree *tree = calloc(1, sizeof *tree);

    if (tree == NULL)
        return NULL;
    tree->dir = strdup(dir);
    tree->set = skill_set_new();
    tree->timer = event_new(base, -1, EV_PERSIST, on_timer, tree);
    if (tree->dir == NULL || tree->set == NULL || tree->timer == NULL) {
        skill_tree_free(tree);
        return NULL;
    }
    if (*dir != '\0') {
        skill_tree_check(tree);
        timer_start(tree->timer, CHECK_INTERVAL_MS);
    }
    return tree;
}

void skill_tree_free(struct skill_tree *tree)
{
    if (tree == NULL)
        return;
    if (tree->timer != NULL)
        event_free(tree->timer);
    skill_set_unref(tree->set);
    free(tree->dir);
    free(tree);
}

const struct skill_set *skill_tree_current(const struct skill_tree *tree)
{
    return tree->set;
}

bool skills_check(const char *dir, const char **reason)
{
    static const struct skill_visitor nobody = {0};
    int failure = skill_walk(dir, &nobody);

    *reason = failure != 0 ? strerror(failure) : NULL;
    return failure == 0;
}
