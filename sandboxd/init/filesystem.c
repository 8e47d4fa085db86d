/* filesystem: the calls of Filesystem, done inside the sandbox by a process of their own (e2b.md 0.10). */
#include "sandboxd/init/filesystem.h"

#include "sandboxd/init/talk.h"

#include <errno.h>
#include <fts.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* What is asked for. */
struct order {
    struct filesystem_request request;
    char path[FILESYSTEM_PATH_MAX_BYTES];
    char destination[FILESYSTEM_PATH_MAX_BYTES];
};

/* Says the entry of a path, or why there is none. */
static void say_entry(const char *path)
{
    talk_begin(FILESYSTEM_ENTRY);
    if (!entry_put(path, path)) {
        int error = errno;

        talk_fail(talk_error_of(error), "%s: lstat %s: %s",
                  error == ENOENT || error == ENOTDIR ? "file not found" : "error getting file info", path,
                  talk_reason(error));
    }
    talk_end();
}

static void run_stat(const struct order *order)
{
    say_entry(order->path);
}

/* --- ListDir -------------------------------------------------------------------------------------- */

static int by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* The directory that is listed, links resolved. */
static void resolve_directory(const char *path, char resolved[static FILESYSTEM_PATH_MAX_BYTES])
{
    struct stat file;

    if (realpath(path, resolved) == NULL) {
        int error = errno;

        if (error == ELOOP)
            talk_fail(FILESYSTEM_PRECONDITION, "cyclic symlink or chain >255 links at \"%s\"", path);
        talk_fail(talk_error_of(error), "%s: lstat %s: %s",
                  talk_error_of(error) == FILESYSTEM_NOT_FOUND ? "directory not found" : "error resolving symlink",
                  path, talk_reason(error));
    }
    if (stat(resolved, &file) < 0)
        talk_fail(talk_error_of(errno), "error getting file info: stat %s: %s", path, talk_reason(errno));
    if (!S_ISDIR(file.st_mode))
        talk_fail(FILESYSTEM_INVALID, "path is not a directory: %s", path);
}

/* Says one entry below the directory, under the path that was asked for. */
static void say_listed(const char *requested, size_t root_bytes, const FTSENT *found)
{
    char shown[2 * FILESYSTEM_PATH_MAX_BYTES];
    size_t requested_bytes = strlen(requested);

    while (requested_bytes > 0 && requested[requested_bytes - 1] == '/')
        requested_bytes--;
    snprintf(shown, sizeof shown, "%.*s%s%s", (int)requested_bytes, requested,
             found->fts_path[root_bytes] == '/' ? "" : "/", found->fts_path + root_bytes);
    talk_begin(FILESYSTEM_ENTRY);
    if (entry_put(found->fts_path, shown)) /* else it has just vanished */
        talk_end();
}

/* A sorted walk: what cannot be read below the directory is passed over. */
static void run_list(const struct order *order)
{
    char root[FILESYSTEM_PATH_MAX_BYTES];
    char *const roots[] = {root, NULL};
    uint32_t depth = order->request.depth == 0 ? 1 : order->request.depth;
    size_t root_bytes;
    FTSENT *found;
    FTS *walk;

    resolve_directory(order->path, root);
    root_bytes = strlen(root) == 1 ? 0 : strlen(root);
    walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, by_name);
    if (walk == NULL)
        talk_fail(talk_error_of(errno), "error reading directory %s: %s", order->path, talk_reason(errno));
    while ((found = fts_read(walk)) != NULL) {
        if (found->fts_level == FTS_ROOTLEVEL && found->fts_info == FTS_DNR)
            talk_fail(talk_error_of(found->fts_errno), "error reading directory %s: open %s: %s", order->path,
                      order->path, talk_reason(found->fts_errno));
        /* A directory comes before and after what is in it; one that cannot be read comes twice too. */
        if (found->fts_level == FTS_ROOTLEVEL || found->fts_info == FTS_DP || found->fts_info == FTS_DNR)
            continue;
        say_listed(order->path, root_bytes, found);
        if ((uint32_t)found->fts_level >= depth)
            fts_set(walk, found, FTS_SKIP);
    }
    fts_close(walk);
}

/* --- MakeDir, Move, Remove ------------------------------------------------------------------------ */

/* Makes one directory unless it is there. */
static void make_one(const char *path)
{
    struct stat file;

    if (stat(path, &file) == 0) {
        if (!S_ISDIR(file.st_mode))
            talk_fail(FILESYSTEM_INTERNAL, "path is a file: %s", path);
        return;
    }
    if (errno != ENOENT)
        talk_fail(errno == ENOTDIR ? FILESYSTEM_INTERNAL : talk_error_of(errno),
                  "failed to stat directory: stat %s: %s", path, talk_reason(errno));
    if (mkdir(path, 0755) < 0 && errno != EEXIST)
        talk_fail(talk_error_of(errno), "failed to create directory: mkdir %s: %s", path, talk_reason(errno));
}

/* Makes a directory and its parents. */
static void make_all(const char *path)
{
    char part[FILESYSTEM_PATH_MAX_BYTES];
    size_t bytes = strlen(path);

    memcpy(part, path, bytes + 1);
    for (size_t i = 1; i <= bytes; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        part[i] = '\0';
        if (part[i - 1] != '/')
            make_one(part);
        part[i] = path[i];
    }
}

static void run_make_dir(const struct order *order)
{
    struct stat file;

    if (stat(order->path, &file) == 0) {
        if (S_ISDIR(file.st_mode))
            talk_fail(FILESYSTEM_EXISTS, "directory already exists: %s", order->path);
        talk_fail(FILESYSTEM_INVALID, "path already exists but it is not a directory: %s", order->path);
    }
    if (errno != ENOENT)
        talk_fail(errno == ENOTDIR ? FILESYSTEM_INTERNAL : talk_error_of(errno), "error getting file info: stat %s: %s",
                  order->path, talk_reason(errno));
    make_all(order->path);
    say_entry(order->path);
}

/* Moves to another file system, as mv does: the home, /tmp and others are mounts of their own here. */
static bool move_across(const char *source, const char *destination)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close(TALK_FD);
        execle("/usr/bin/mv", "mv", "-f", "-T", "--", source, destination, NULL, (char *[]){NULL});
        _exit(127);
    }
    if (pid < 0)
        return false;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    errno = EXDEV;
    return status == 0;
}

static void run_move(const struct order *order)
{
    char parent[FILESYSTEM_PATH_MAX_BYTES];
    char *slash;
    struct stat file;
    bool moved;
    int error;

    strcpy(parent, order->destination);
    slash = strrchr(parent, '/');
    if (slash != NULL && slash != parent) {
        *slash = '\0';
        make_all(parent);
    }
    moved = rename(order->path, order->destination) == 0;
    error = errno;
    /* Between file systems the kernel does not look whether there is a source. */
    if (!moved && error == EXDEV && lstat(order->path, &file) < 0)
        error = errno;
    else if (!moved && error == EXDEV)
        moved = move_across(order->path, order->destination);
    if (!moved)
        talk_fail(error == ENOTDIR ? FILESYSTEM_INTERNAL : talk_error_of(error), "%s: rename %s %s: %s",
                  error == ENOENT ? "source file not found" : "error renaming", order->path, order->destination,
                  talk_reason(error));
    say_entry(order->destination);
}

/* Removes one thing that the walk came to; 0 or the errno. */
static int remove_found(const FTSENT *found)
{
    int result;

    if (found->fts_info == FTS_D) /* it comes again, when it is empty */
        return 0;
    result = found->fts_info == FTS_DP || found->fts_info == FTS_DNR ? rmdir(found->fts_accpath)
                                                                     : unlink(found->fts_accpath);
    if (result == 0 || errno == ENOENT)
        return 0;
    return found->fts_errno != 0 ? found->fts_errno : errno;
}

/* Removes what is there; links themselves, never what they lead to. What is not there is removed already. */
static void run_remove(const struct order *order)
{
    char *const roots[] = {(char *)order->path, NULL};
    FTS *walk = fts_open(roots, FTS_PHYSICAL, NULL);
    int error = walk == NULL ? errno : 0;
    FTSENT *found;

    while (walk != NULL && (found = fts_read(walk)) != NULL) {
        int failure = remove_found(found);

        error = error == 0 ? failure : error;
    }
    if (walk != NULL)
        fts_close(walk);
    if (error != 0 && error != ENOTDIR && error != ENOENT)
        talk_fail(talk_error_of(error), "error removing file or directory: unlinkat %s: %s", order->path,
                  talk_reason(error));
}

static void run_watch(const struct order *order)
{
    watch_run(order->path, order->request.flags);
}

/* --- the conversation ----------------------------------------------------------------------------- */

static const struct {
    enum filesystem_operation operation;
    void (*run)(const struct order *order);
} operations[] = {
    {FILESYSTEM_STAT, run_stat}, {FILESYSTEM_LIST, run_list},     {FILESYSTEM_MAKE_DIR, run_make_dir},
    {FILESYSTEM_MOVE, run_move}, {FILESYSTEM_REMOVE, run_remove}, {FILESYSTEM_WATCH, run_watch},
};

/* Takes so many bytes; false when they do not come. */
static bool take(void *bytes, size_t length)
{
    return recv(TALK_FD, bytes, length, MSG_WAITALL) == (ssize_t)length;
}

static bool take_path(char path[static FILESYSTEM_PATH_MAX_BYTES], size_t length)
{
    if (length >= FILESYSTEM_PATH_MAX_BYTES || (length > 0 && !take(path, length)))
        return false;
    path[length] = '\0';
    return true;
}

void talk_lead(int fd)
{
    static struct order order;

    if ((fd != TALK_FD && dup2(fd, TALK_FD) < 0) || close_range(TALK_FD + 1, ~0U, 0) < 0)
        _exit(1);
    if (!take(&order.request, sizeof order.request) || !take_path(order.path, order.request.path_bytes) ||
        !take_path(order.destination, order.request.destination_bytes))
        _exit(1);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (operations[i].operation == order.request.operation)
            operations[i].run(&order);
    }
    talk_begin(FILESYSTEM_DONE);
    talk_end();
    talk_flush();
    _exit(0);
}
