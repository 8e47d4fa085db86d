#include "master/status.h"

#include "common/scoreboard.h"
#include "common/state_files.h"
#include "worker/worker.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES  64 /* /proc/PID/fd/N */
#define TARGET_MARK "/memfd:" SCOREBOARD_FILE_NAME
#define WHO_TEXT    "run this as root or as the server's user"

static enum status_exit unseen(const char *what, const char *reason)
{
    fprintf(stderr, "sandstorm: cannot look at %s: %s\n", what, reason);
    return STATUS_UNSEEN;
}

/* --- the master ------------------------------------------------------------------------------------------- */

static enum status_exit no_lock(const char *path)
{
    fprintf(stderr,
            "sandstorm is not running: no server holds %s (another --state-dir, --project-dir or --config? a "
            "server is also found by --pid)\n",
            path);
    return STATUS_STOPPED;
}

/* Who holds the lock of the state directory. */
static enum status_exit find_holder(const char *path, pid_t *pid)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int result;

    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return no_lock(path);
    if (fd < 0)
        return unseen(path, errno == EACCES ? WHO_TEXT : strerror(errno));
    result = fcntl(fd, F_GETLK, &lock);
    close(fd);
    if (result < 0)
        return unseen(path, strerror(errno));
    if (lock.l_type == F_UNLCK)
        return no_lock(path);
    if (lock.l_pid <= 0)
        return unseen(path, "its holder is in another container");
    *pid = lock.l_pid;
    return STATUS_RUNS;
}

static enum status_exit find_master(const struct settings_load *load, pid_t *pid)
{
    char *path;
    enum status_exit found;

    *pid = (pid_t)settings_load_status(load)->pid;
    if (*pid > 0)
        return STATUS_RUNS;
    if (asprintf(&path, "%s/" STATE_FILE_LOCK, settings_load_values(load)->state_dir) < 0)
        return unseen("the state directory", strerror(ENOMEM));
    found = find_holder(path, pid);
    free(path);
    return found;
}

/* --- its scoreboard --------------------------------------------------------------------------------------- */

static bool is_scoreboard(int directory_fd, const char *name)
{
    char target[sizeof TARGET_MARK];
    ssize_t length = readlinkat(directory_fd, name, target, sizeof target - 1);

    return length == sizeof target - 1 && memcmp(target, TARGET_MARK, sizeof target - 1) == 0;
}

/* The descriptor, -1 with errno; ENOENT: the process has none. */
static int open_scoreboard(const char *directory)
{
    DIR *listing = opendir(directory);
    const struct dirent *entry;
    int fd = -1;
    int saved_errno = ENOENT;

    if (listing == NULL)
        return -1;
    while (fd < 0 && (entry = readdir(listing)) != NULL) {
        if (!is_scoreboard(dirfd(listing), entry->d_name))
            continue;
        fd = openat(dirfd(listing), entry->d_name, O_RDONLY | O_CLOEXEC);
        saved_errno = errno;
    }
    closedir(listing);
    errno = saved_errno;
    return fd;
}

static enum status_exit tell_unopened(pid_t pid)
{
    char what[PATH_BYTES];

    snprintf(what, sizeof what, "process %d", (int)pid);
    switch (errno) {
    case ENOENT:
        fprintf(stderr, "sandstorm is not running: process %d does not exist, or is no master of sandstorm\n",
                (int)pid);
        return STATUS_STOPPED;
    case EACCES:
    case EPERM:
        return unseen(what, WHO_TEXT);
    case EPROTO:
        return unseen(what, "it is of another version than this program");
    default:
        return unseen(what, strerror(errno));
    }
}

enum status_exit status_print(const struct settings_load *load)
{
    bool json = settings_load_status(load)->json;
    struct scoreboard *scoreboard = NULL;
    char directory[PATH_BYTES];
    pid_t pid = 0;
    enum status_exit found = find_master(load, &pid);
    bool printed;
    int fd;

    if (found != STATUS_RUNS)
        return found;
    snprintf(directory, sizeof directory, "/proc/%d/fd", (int)pid);
    fd = open_scoreboard(directory);
    if (fd >= 0)
        scoreboard = scoreboard_map(fd, false);
    if (scoreboard == NULL)
        found = tell_unopened(pid);
    if (fd >= 0)
        close(fd);
    if (scoreboard == NULL)
        return found;
    printed = worker_print_status(scoreboard, pid, json);
    scoreboard_free(scoreboard);
    return printed ? STATUS_RUNS : unseen("the server", "its status cannot be written");
}
