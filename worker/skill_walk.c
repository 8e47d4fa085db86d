#include "worker/skill_walk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROC_FD_BYTES 32

struct walk {
    const struct skill_visitor *visitor;
    char path[SKILL_PATH_MAX_BYTES];
    size_t path_length;
    char bounds[PATH_MAX]; /* links must lead below this directory */
    const char *leads_out; /* what is said of those that do not */
    struct {
        dev_t device;
        ino_t inode;
    } chain[SKILL_DEPTH_MAX + 1]; /* the directories we are in */
    size_t depth;
    size_t entries;
    int failure; /* errno that ends the walk */
};

struct name_list {
    char **names;
    size_t count;
    size_t size;
};

/* --- names ------------------------------------------------------------------------------------------- */

static void name_list_release(struct name_list *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->names[i]);
    free(list->names);
}

static bool name_list_add(struct name_list *list, const char *name)
{
    if (list->count == list->size) {
        size_t size = list->size * 2 + 16;
        char **grown = reallocarray(list->names, size, sizeof *grown);

        if (grown == NULL)
            return false;
        list->names = grown;
        list->size = size;
    }
    list->names[list->count] = strdup(name);
    return list->names[list->count] != NULL && ++list->count;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void skip(const struct walk *walk, const char *reason)
{
    if (walk->visitor->on_skip != NULL)
        walk->visitor->on_skip(walk->visitor->context, walk->path, reason);
}

bool skill_failure_is_ours(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* What is wrong with the skills directory itself ends the walk too. */
static void skip_unreadable(struct walk *walk, int error)
{
    if (skill_failure_is_ours(error) || walk->path_length == 0)
        walk->failure = error;
    else if (error != ENOENT) /* gone meanwhile is no news: the next walk will not see it */
        skip(walk, strerror(error));
}

/* The names in a directory, sorted; what is missing because of an error was skipped. */
static void list_names(struct walk *walk, int fd, struct name_list *list)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy >= 0 ? fdopendir(copy) : NULL;
    const struct dirent *item = NULL;

    if (stream == NULL) {
        skip_unreadable(walk, errno);
        if (copy >= 0)
            close(copy);
        return;
    }
    while (walk->failure == 0 && (errno = 0, item = readdir(stream)) != NULL) {
        if (strcmp(item->d_name, ".") == 0 || strcmp(item->d_name, "..") == 0)
            continue;
        if (walk->entries++ >= SKILL_ENTRIES_MAX) {
            skip(walk, "what else is in it goes beyond the 20000 entries that are looked at");
            break;
        }
        if (!name_list_add(list, item->d_name))
            walk->failure = ENOMEM;
    }
    if (item == NULL && errno != 0)
        skip_unreadable(walk, errno);
    closedir(stream);
    if (list->count > 1)
        qsort(list->names, list->count, sizeof *list->names, compare_names);
}

/* Lengthens the path; returns what shortens it again, or -1 after the entry was skipped. */
static ssize_t path_push(struct walk *walk, const char *name)
{
    size_t before = walk->path_length;
    size_t room = sizeof walk->path - before;
    int n = snprintf(walk->path + before, room, "%s%s", before > 0 ? "/" : "", name);

    if (n < 0 || (size_t)n >= room) {
        walk->path[before] = '\0';
        skip(walk, "an entry in it has a path that is too long");
        return -1;
    }
    walk->path_length += (size_t)n;
    return (ssize_t)before;
}

static void path_pop(struct walk *walk, ssize_t before)
{
    walk->path_length = (size_t)before;
    walk->path[before] = '\0';
}

/* --- entries ----------------------------------------------------------------------------------------- */

static const char *proc_path(int fd, char out[static PROC_FD_BYTES])
{
    snprintf(out, PROC_FD_BYTES, "/proc/self/fd/%d", fd);
    return out;
}

static bool real_path(int fd, char out[static PATH_MAX])
{
    char link[PROC_FD_BYTES];
    ssize_t length = readlink(proc_path(fd, link), out, PATH_MAX - 1);

    if (length <= 0)
        return false;
    out[length] = '\0';
    return true;
}

static bool is_inside(const struct walk *walk, int fd)
{
    char path[PATH_MAX];
    size_t length = strlen(walk->bounds);

    return real_path(fd, path) && strncmp(path, walk->bounds, length) == 0 &&
           (path[length] == '/' || path[length] == '\0');
}

static void show_status(const struct walk *walk, const struct stat *status)
{
    if (walk->visitor->on_status != NULL)
        walk->visitor->on_status(walk->visitor->context, walk->path, status);
}

/* Follows a link: the entry becomes what it leads to. */
static bool follow(struct walk *walk, struct skill_entry *entry)
{
    int target = openat(entry->at, entry->name, O_PATH | O_CLOEXEC);

    if (target < 0 && skill_failure_is_ours(errno)) {
        walk->failure = errno;
    } else if (target < 0) {
        skip(walk, "a link that leads nowhere");
    } else if (!is_inside(walk, target)) {
        skip(walk, walk->leads_out);
    } else if (fstat(target, &entry->status) == 0) {
        entry->at = target;
        entry->name = NULL;
        show_status(walk, &entry->status);
        return true;
    }
    if (target >= 0)
        close(target);
    return false;
}

/* To be ended with entry_release(). */
static bool entry_look(struct walk *walk, int directory, const char *name, struct skill_entry *entry)
{
    *entry = (struct skill_entry){.path = walk->path, .at = directory, .name = name};
    if (fstatat(directory, name, &entry->status, AT_SYMLINK_NOFOLLOW) < 0) {
        skip_unreadable(walk, errno);
        return false;
    }
    show_status(walk, &entry->status);
    return !S_ISLNK(entry->status.st_mode) || follow(walk, entry);
}

static void entry_release(const struct skill_entry *entry)
{
    if (entry->name == NULL)
        close(entry->at);
}

int skill_entry_open(const struct skill_entry *entry)
{
    int path_fd = entry->name != NULL ? openat(entry->at, entry->name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : entry->at;
    char link[PROC_FD_BYTES];
    struct stat status;
    int fd = -1;

    if (path_fd < 0)
        return -1;
    /* O_PATH opens nothing: what is opened below is what was looked at here. */
    if (fstat(path_fd, &status) == 0 && S_ISREG(status.st_mode))
        fd = open(proc_path(path_fd, link), O_RDONLY | O_NOCTTY | O_CLOEXEC);
    else
        errno = ENOENT;
    if (entry->name != NULL) {
        int error = errno;

        close(path_fd);
        errno = error;
    }
    return fd;
}

/* Opens a directory and enters it in the chain; -1 when that cannot be. To be ended with leave(). */
static int enter(struct walk *walk, const struct skill_entry *entry)
{
    int fd;

    for (size_t i = 0; i < walk->depth; i++) {
        if (walk->chain[i].device == entry->status.st_dev && walk->chain[i].inode == entry->status.st_ino) {
            skip(walk, "a link that leads to a directory it is in");
            return -1;
        }
    }
    if (walk->depth > SKILL_DEPTH_MAX) {
        skip(walk, "more than 20 directories deep");
        return -1;
    }
    fd = openat(entry->at, entry->name != NULL ? entry->name : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        skip_unreadable(walk, errno);
        return -1;
    }
    walk->chain[walk->depth].device = entry->status.st_dev;
    walk->chain[walk->depth].inode = entry->status.st_ino;
    walk->depth++;
    return fd;
}

static void leave(struct walk *walk, int fd)
{
    walk->depth--;
    close(fd);
}

/* --- skills ------------------------------------------------------------------------------------------ */

/* Shows each entry of an open directory to `visit`, which finds its path in walk->path. */
static void for_each(struct walk *walk, int fd, void (*visit)(struct walk *walk, int fd, const char *name))
{
    struct name_list list = {0};

    list_names(walk, fd, &list);
    for (size_t i = 0; i < list.count && walk->failure == 0; i++) {
        ssize_t before;

        if (strcmp(list.names[i], ".DS_Store") == 0)
            continue;
        before = path_push(walk, list.names[i]);
        if (before < 0)
            continue;
        visit(walk, fd, list.names[i]);
        path_pop(walk, before);
    }
    name_list_release(&list);
}

static void visit_entry(struct walk *walk, int directory, const char *name)
{
    struct skill_entry entry;

    if (!entry_look(walk, directory, name, &entry))
        return;
    if (S_ISDIR(entry.status.st_mode)) {
        int fd = enter(walk, &entry);

        if (fd >= 0) {
            for_each(walk, fd, visit_entry);
            leave(walk, fd);
        }
    } else if (!S_ISREG(entry.status.st_mode)) {
        skip(walk, "neither a regular file nor a directory");
    } else if (walk->visitor->on_file != NULL) {
        walk->visitor->on_file(walk->visitor->context, &entry);
    }
    entry_release(&entry);
}

static bool is_skill_name(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

    return *name != '\0' && name[strspn(name, allowed)] == '\0';
}

/* Goes through one skill; the bounds of links are its own meanwhile. */
static void walk_skill(struct walk *walk, int fd)
{
    char outer[PATH_MAX];
    struct stat status;

    if (fstatat(fd, SKILL_MAIN_FILE, &status, 0) < 0 || !S_ISREG(status.st_mode)) {
        skip(walk, "it has no file " SKILL_MAIN_FILE);
        return;
    }
    memcpy(outer, walk->bounds, sizeof outer);
    if (real_path(fd, walk->bounds)) {
        walk->leads_out = "a link that leads out of the skill";
        for_each(walk, fd, visit_entry);
    }
    memcpy(walk->bounds, outer, sizeof outer);
    walk->leads_out = "a link that leads out of the skills directory";
}

static void visit_skill(struct walk *walk, int directory, const char *name)
{
    struct skill_entry entry;

    if (!entry_look(walk, directory, name, &entry))
        return;
    if (!S_ISDIR(entry.status.st_mode)) {
        skip(walk, "not a directory");
    } else if (!is_skill_name(name)) {
        skip(walk, "its name does not match [a-zA-Z0-9_-]+");
    } else {
        int fd = enter(walk, &entry);

        if (fd >= 0) {
            walk_skill(walk, fd);
            leave(walk, fd);
        }
    }
    entry_release(&entry);
}

int skill_walk(const char *dir, const struct skill_visitor *visitor)
{
    struct walk walk = {.visitor = visitor, .leads_out = "a link that leads out of the skills directory"};
    struct skill_entry top = {.path = walk.path, .name = dir, .at = AT_FDCWD};
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    if (fstat(fd, &top.status) < 0 || !real_path(fd, walk.bounds)) {
        walk.failure = errno;
    } else {
        walk.chain[0].device = top.status.st_dev;
        walk.chain[0].inode = top.status.st_ino;
        walk.depth = 1;
        show_status(&walk, &top.status);
        for_each(&walk, fd, visit_skill);
    }
    close(fd);
    return walk.failure;
}
