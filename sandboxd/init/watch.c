/*
 * watch: a directory watched with inotify, and on request all below it, until sandboxd closes the conversation.
 *
 * The events are those of fsnotify, which envd uses: a name relative to the directory, "." for itself. A directory that
 * appears below is watched from then on, and what it already holds is told as created: it may come twice, but it is
 * never missed.
 */
#include "sandboxd/init/talk.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Directories of one watch. */
#define DIRECTORIES_MAX 4096
/* Read at once. */
#define EVENTS_BYTES 65536
#define MASK                                                                                                           \
    (IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_MODIFY | IN_ATTRIB | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF |     \
     IN_ONLYDIR)

/* File systems of other machines, and of programs. */
static const unsigned network_types[] = {0x6969, 0xff534d42, 0x517b, 0xfe534d42, 0x65735546};

/* A directory that is watched. */
struct directory {
    int descriptor;
    char *name; /* relative, "" for the one that was asked for */
};

/* What this process is. */
static struct {
    int inotify_fd;
    unsigned flags;
    const char *root;
    uint32_t moving_cookie; /* of a directory that was moved and is not known to be elsewhere in the tree; 0: none */
    char moving[FILESYSTEM_PATH_MAX_BYTES]; /* its name before */
    size_t count;
    struct directory directories[DIRECTORIES_MAX];
} watch;

/* Joins two names; "" is none. */
static void join(char out[static FILESYSTEM_PATH_MAX_BYTES], const char *first, const char *second)
{
    int used = snprintf(out, FILESYSTEM_PATH_MAX_BYTES, "%s%s%s", first,
                        first[0] == '\0' || second[0] == '\0' || first[strlen(first) - 1] == '/' ? "" : "/", second);

    if (used >= FILESYSTEM_PATH_MAX_BYTES) /* no system call takes it either */
        out[0] = '\0';
}

static void say_event(enum filesystem_event_type type, const char *name)
{
    struct filesystem_event event = {.type = type};
    char path[FILESYSTEM_PATH_MAX_BYTES];
    struct stat file;

    join(path, watch.root, name);
    event.has_entry = (watch.flags & FILESYSTEM_INCLUDE_ENTRY) != 0 && lstat(path, &file) == 0;
    talk_begin(FILESYSTEM_EVENT);
    talk_put(&event, sizeof event);
    talk_put_string(name[0] == '\0' ? "." : name);
    if (event.has_entry && !entry_put(path, path)) {
        /* It vanished in between: an event without one. */
        event.has_entry = 0;
        talk_begin(FILESYSTEM_EVENT);
        talk_put(&event, sizeof event);
        talk_put_string(name[0] == '\0' ? "." : name);
    }
    talk_end();
}

/* --- directories ---------------------------------------------------------------------------------- */

static struct directory *find_directory(int descriptor)
{
    for (size_t i = 0; i < watch.count; i++) {
        if (watch.directories[i].descriptor == descriptor)
            return &watch.directories[i];
    }
    return NULL;
}

static void drop_directory(struct directory *directory)
{
    free(directory->name);
    *directory = watch.directories[--watch.count];
}

/* Whether a name is that of a directory, or of something below it. */
static bool is_within(const char *name, const char *tree)
{
    size_t bytes = strlen(tree);

    return strncmp(name, tree, bytes) == 0 && (name[bytes] == '\0' || name[bytes] == '/');
}

/* Stops to watch a directory and what is below it: it was moved away. */
static void drop_tree(const char *name)
{
    for (size_t i = watch.count; i-- > 0;) {
        if (!is_within(watch.directories[i].name, name))
            continue;
        inotify_rm_watch(watch.inotify_fd, watch.directories[i].descriptor);
        drop_directory(&watch.directories[i]);
    }
}

/* A directory was moved within the tree: it and what is below it have other names, and are watched without a gap. False
 * when it was not watched: it moved on before anybody could. */
static bool rename_tree(const char *from, const char *to)
{
    bool found = false;

    for (size_t i = 0; i < watch.count; i++) {
        char name[FILESYSTEM_PATH_MAX_BYTES];
        const char *below = watch.directories[i].name + strlen(from);

        if (!is_within(watch.directories[i].name, from))
            continue;
        join(name, to, *below == '/' ? below + 1 : below);
        free(watch.directories[i].name);
        watch.directories[i].name = strdup(name);
        if (watch.directories[i].name == NULL)
            talk_fail(FILESYSTEM_EXHAUSTED, "watcher error: out of memory");
        found = true;
    }
    return found;
}

/* Watches one directory; false with errno when it cannot be, or is no directory. */
static bool add_directory(const char *name)
{
    char path[FILESYSTEM_PATH_MAX_BYTES];
    struct directory *directory;
    int descriptor;

    join(path, watch.root, name);
    descriptor = inotify_add_watch(watch.inotify_fd, path, name[0] == '\0' ? MASK : MASK | IN_DONT_FOLLOW);
    if (descriptor < 0)
        return false;
    directory = find_directory(descriptor);
    if (directory == NULL && watch.count == DIRECTORIES_MAX) {
        errno = ENOSPC;
        return false;
    }
    if (directory == NULL)
        directory = &watch.directories[watch.count++];
    else /* moved within the tree */
        free(directory->name);
    directory->descriptor = descriptor;
    directory->name = strdup(name);
    if (directory->name == NULL)
        talk_fail(FILESYSTEM_EXHAUSTED, "watcher error: out of memory");
    return true;
}

/* Whether an errno means that the limits of watches are reached. */
static bool is_limit(int error)
{
    return error == ENOSPC || error == ENOMEM;
}

static _Noreturn void fail_limit(void)
{
    talk_fail(FILESYSTEM_EXHAUSTED, "too many directories to watch below %s: at most %d in one watcher", watch.root,
              DIRECTORIES_MAX);
}

/* Watches what is in a directory, and tells it when it is new. */
static void scan_directory(const char *name, bool is_new)
{
    char path[FILESYSTEM_PATH_MAX_BYTES], below[FILESYSTEM_PATH_MAX_BYTES];
    const struct dirent *entry;
    DIR *directory;

    join(path, watch.root, name);
    directory = opendir(path);
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        join(below, name, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || below[0] == '\0')
            continue;
        if (is_new)
            say_event(FILESYSTEM_CREATE, below);
        if ((entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN) && !add_directory(below) && is_limit(errno))
            fail_limit();
    }
    if (directory != NULL)
        closedir(directory);
}

/* Scans the directories from this place in the table on; what is found stands behind them, and is scanned too. */
static void scan_from(size_t first, bool is_new)
{
    for (size_t i = first; i < watch.count; i++) {
        char name[FILESYSTEM_PATH_MAX_BYTES];

        /* A copy: a directory that moves meanwhile is found again, and has another name then. */
        join(name, watch.directories[i].name, "");
        scan_directory(name, is_new);
    }
}

/* --- events --------------------------------------------------------------------------------------- */

static const struct {
    uint32_t mask;
    enum filesystem_event_type type;
} types[] = {
    {IN_CREATE | IN_MOVED_TO, FILESYSTEM_CREATE},
    {IN_MOVE_SELF | IN_MOVED_FROM, FILESYSTEM_RENAME},
    {IN_ATTRIB, FILESYSTEM_CHMOD},
    {IN_MODIFY, FILESYSTEM_WRITE},
    {IN_DELETE_SELF | IN_DELETE, FILESYSTEM_REMOVED},
};

/* What a directory became that was moved: the event after that says so, or it left the tree. */
static void settle_move(const struct inotify_event *next)
{
    if (watch.moving_cookie != 0 && ((next->mask & IN_MOVED_TO) == 0 || next->cookie != watch.moving_cookie)) {
        drop_tree(watch.moving);
        watch.moving_cookie = 0;
    }
}

/* Watches a directory that appeared, and what it holds; tells that when nobody knows of it. */
static void follow_new(const char *name, bool is_new)
{
    size_t first = watch.count; /* a directory that a scan found before its event stands before it */

    if (!add_directory(name) && is_limit(errno))
        fail_limit();
    scan_from(first, is_new);
}

/* A directory came or went below one that is watched. */
static void follow_directory(uint32_t mask, uint32_t cookie, const char *name)
{
    if ((mask & IN_MOVED_FROM) != 0) {
        watch.moving_cookie = cookie;
        strcpy(watch.moving, name);
    } else if ((mask & IN_DELETE) != 0) {
        drop_tree(name);
    } else if ((mask & IN_MOVED_TO) != 0 && watch.moving_cookie != 0) {
        watch.moving_cookie = 0;
        if (!rename_tree(watch.moving, name))
            follow_new(name, true);
    } else if ((mask & (IN_CREATE | IN_MOVED_TO)) != 0) {
        follow_new(name, (mask & IN_CREATE) != 0);
    }
}

static void take_event(const struct inotify_event *event)
{
    const struct directory *directory;
    char name[FILESYSTEM_PATH_MAX_BYTES];

    settle_move(event);
    directory = find_directory(event->wd);
    if ((event->mask & IN_Q_OVERFLOW) != 0)
        talk_fail(FILESYSTEM_INTERNAL, "watcher error: fsnotify: queue or buffer overflow");
    if (directory == NULL || (event->mask & IN_IGNORED) != 0)
        return;
    /* What a directory below says of itself its parent has said already. */
    if (event->len == 0 && directory->name[0] != '\0')
        return;
    join(name, directory->name, event->len > 0 ? event->name : "");
    if (event->len > 0 && name[0] == '\0')
        return;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if ((event->mask & types[i].mask) != 0)
            say_event(types[i].type, name);
    }
    if ((watch.flags & FILESYSTEM_RECURSIVE) != 0 && (event->mask & IN_ISDIR) != 0 && event->len > 0)
        follow_directory(event->mask, event->cookie, name);
}

static void take_events(void)
{
    static _Alignas(struct inotify_event) char bytes[EVENTS_BYTES];
    ssize_t got = read(watch.inotify_fd, bytes, sizeof bytes);

    for (ssize_t at = 0; at < got;) {
        const struct inotify_event *event = (const struct inotify_event *)(bytes + at);

        take_event(event);
        at += (ssize_t)(sizeof *event + event->len);
    }
    talk_flush();
}

/* Refuses what cannot be watched, in envd's words. */
static void check_root(const char *path, unsigned flags)
{
    struct stat file;
    struct statfs mounted;

    if (stat(path, &file) < 0 || statfs(path, &mounted) < 0) {
        enum filesystem_error error = talk_error_of(errno);

        talk_fail(error,
                  error == FILESYSTEM_NOT_FOUND ? "path %s not found: stat %s: %s"
                                                : "error statting path %s: stat %s: %s",
                  path, path, talk_reason(errno));
    }
    if (!S_ISDIR(file.st_mode))
        talk_fail(FILESYSTEM_INVALID, "path %s not a directory", path);
    for (size_t i = 0; i < sizeof network_types / sizeof *network_types; i++) {
        if ((flags & FILESYSTEM_NETWORK_MOUNTS) == 0 && (unsigned)mounted.f_type == network_types[i])
            talk_fail(FILESYSTEM_INVALID, "cannot watch path on network filesystem: %s", path);
    }
}

void watch_run(const char *path, unsigned flags)
{
    struct pollfd watched[2] = {{.fd = TALK_FD, .events = POLLIN}, {.events = POLLIN}};

    check_root(path, flags);
    watch.root = path;
    watch.flags = flags;
    watch.inotify_fd = inotify_init1(IN_CLOEXEC);
    if (watch.inotify_fd < 0)
        talk_fail(talk_error_of(errno), "error creating watcher: %s", talk_reason(errno));
    if (!add_directory("")) {
        if (is_limit(errno))
            fail_limit();
        talk_fail(talk_error_of(errno), "error adding path %s to watcher: %s", path, talk_reason(errno));
    }
    if ((flags & FILESYSTEM_RECURSIVE) != 0)
        scan_from(0, false);
    talk_begin(FILESYSTEM_WATCHING);
    talk_end();
    talk_flush();
    watched[1].fd = watch.inotify_fd;
    for (;;) {
        if (poll(watched, 2, -1) < 0)
            continue;
        if (watched[0].revents != 0) /* closed: nobody says anything here */
            _exit(0);
        take_events();
    }
}
