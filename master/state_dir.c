#include "master/state_dir.h"

#include "common/log.h"
#include "common/scoreboard.h"
#include "common/state_files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define DIRECTORY_MODE 0700
#define FILE_MODE      0600
#define OTHERS         0077
/* A holder may die between the refusal and the question who it is. */
#define LOCK_TRIES_MAX 3
#define SHARED_TEXT    "other users may write there: name a directory that is the server's own"

/* --- modes ---------------------------------------------------------------------------------------------- */

static bool is_our_file(const char *name)
{
    static const char *const ours[] = {
        ".", "..", STATE_FILE_LOCK, STATE_FILE_INSTANCE, STATE_FILE_INSTANCE_NEW, STATE_FILE_RUNS, STATE_FILE_RUNS_NEW,
    };

    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        if (strcmp(name, ours[i]) == 0)
            return true;
    }
    return false;
}

/* Nothing else is in it: a slip in a setting must not lock others out of /var/lib. */
static bool is_ours_alone(int dir_fd)
{
    int listed_fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = listed_fd >= 0 ? fdopendir(listed_fd) : NULL;
    struct dirent *entry;
    bool alone = listing != NULL;

    while (alone && (entry = readdir(listing)) != NULL)
        alone = is_our_file(entry->d_name);
    if (listing != NULL)
        closedir(listing);
    else if (listed_fd >= 0)
        close(listed_fd);
    return alone;
}

static void narrow_directory(const struct state_dir *dir, mode_t mode)
{
    if ((mode & OTHERS) == 0)
        return;
    if (!is_ours_alone(dir->fd))
        log_warn("state_dir %s has mode %04o and holds files that are not ours: its mode is left alone", dir->path,
                 (unsigned)mode & 07777);
    else if (fchmod(dir->fd, DIRECTORY_MODE) < 0)
        log_warn("state_dir %s has mode %04o, which cannot be narrowed: %s", dir->path, (unsigned)mode & 07777,
                 strerror(errno));
    else
        log_info("state_dir %s had mode %04o, now %04o", dir->path, (unsigned)mode & 07777, DIRECTORY_MODE);
}

/* The records of runs are for nobody else's eyes. */
static void narrow_history(const struct state_dir *dir)
{
    struct stat status;

    if (fstatat(dir->fd, STATE_FILE_RUNS, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode) ||
        (status.st_mode & OTHERS) == 0)
        return;
    if (fchmodat(dir->fd, STATE_FILE_RUNS, FILE_MODE, 0) < 0)
        log_warn("%s/" STATE_FILE_RUNS " has mode %04o, which cannot be narrowed: %s", dir->path,
                 (unsigned)status.st_mode & 07777, strerror(errno));
    else
        log_info("%s/" STATE_FILE_RUNS " had mode %04o, now %04o", dir->path, (unsigned)status.st_mode & 07777,
                 FILE_MODE);
}

/* --- the lock ------------------------------------------------------------------------------------------- */

enum lock_result { LOCK_TAKEN, LOCK_HELD, LOCK_FAILED };

/* *holder is 0 when it cannot be told: in another pid namespace. */
static enum lock_result take_lock(int fd, pid_t *holder)
{
    for (int i = 0; i < LOCK_TRIES_MAX; i++) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

        if (fcntl(fd, F_SETLK, &lock) == 0)
            return LOCK_TAKEN;
        if (errno != EACCES && errno != EAGAIN)
            return LOCK_FAILED;
        if (fcntl(fd, F_GETLK, &lock) < 0)
            return LOCK_FAILED;
        *holder = lock.l_type != F_UNLCK ? lock.l_pid : 0;
        if (lock.l_type != F_UNLCK)
            break;
    }
    return LOCK_HELD;
}

static void tell_holder(const char *path, pid_t holder)
{
    char who[32] = "of another container";

    if (holder > 0)
        snprintf(who, sizeof who, "pid %d", (int)holder);
    log_error("state_dir %s is held by another server, %s: stop that one, or give this one a state_dir of its own",
              path, who);
}

/* --- the directory -------------------------------------------------------------------------------------- */

/* NULL, or why it is no place for state. Directories like /tmp are everybody's. */
static const char *fault_of(const struct stat *status)
{
    if (!S_ISDIR(status->st_mode))
        return strerror(ENOTDIR);
    return (status->st_mode & S_ISVTX) != 0 ? SHARED_TEXT : NULL;
}

/* NULL, or the reason; *status is the directory's. */
static const char *open_directory(struct state_dir *dir, struct stat *status)
{
    if (mkdir(dir->path, DIRECTORY_MODE) < 0 && errno != EEXIST)
        return strerror(errno);
    dir->fd = open(dir->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir->fd < 0 || fstat(dir->fd, status) < 0)
        return strerror(errno);
    return fault_of(status);
}

/* The one warning. */
static void do_without(struct state_dir *dir, const char *reason)
{
    log_warn("state_dir %s: %s: neither a history of runs nor the name of the instance is kept", dir->path, reason);
    state_dir_close(dir);
}

bool state_dir_open(struct state_dir *dir, const char *path)
{
    struct stat status = {.st_mode = 0};
    const char *fault;
    enum lock_result result;
    pid_t holder = 0;

    *dir = STATE_DIR_CLOSED;
    dir->path = strdup(path);
    if (dir->path == NULL)
        log_panic("state_dir: no memory for a path");
    fault = open_directory(dir, &status);
    if (fault == NULL) {
        dir->lock_fd = openat(dir->fd, STATE_FILE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
        fault = dir->lock_fd < 0 ? strerror(errno) : NULL;
    }
    if (fault != NULL) {
        do_without(dir, fault);
        return true;
    }
    result = take_lock(dir->lock_fd, &holder);
    if (result == LOCK_FAILED) {
        do_without(dir, strerror(errno));
        return true;
    }
    if (result == LOCK_HELD) {
        tell_holder(path, holder);
        state_dir_close(dir);
        return false;
    }
    narrow_directory(dir, status.st_mode);
    narrow_history(dir);
    return true;
}

void state_dir_adopt(struct state_dir *dir, const char *path, int lock_fd)
{
    struct stat status = {.st_mode = 0};
    const char *fault;

    *dir = STATE_DIR_CLOSED;
    if (lock_fd < 0)
        return;
    dir->lock_fd = lock_fd;
    dir->path = strdup(path);
    if (dir->path == NULL)
        log_panic("state_dir: no memory for a path");
    fault = open_directory(dir, &status);
    if (fault != NULL)
        do_without(dir, fault);
}

void state_dir_close(struct state_dir *dir)
{
    if (dir->lock_fd >= 0)
        close(dir->lock_fd);
    if (dir->fd >= 0)
        close(dir->fd);
    free(dir->path);
    *dir = STATE_DIR_CLOSED;
}

/* The files first: whoever owns the directory may put others in their place. */
void state_dir_give(const struct state_dir *dir, const struct privileges *privileges)
{
    static const char *const files[] = {STATE_FILE_LOCK, STATE_FILE_INSTANCE, STATE_FILE_RUNS};
    struct stat status;

    if (!privileges->are_dropped || dir->path == NULL || fstat(dir->fd, &status) < 0 ||
        status.st_uid == privileges->uid)
        return;
    if (!is_ours_alone(dir->fd)) {
        log_warn("state_dir %s holds files that are not ours: it is not given to the setting user", dir->path);
        return;
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (fchownat(dir->fd, files[i], privileges->uid, privileges->gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != ENOENT)
            log_warn("cannot make %s/%s the workers' own: %s", dir->path, files[i], strerror(errno));
    }
    privileges_give(privileges, dir->fd, dir->path);
}

void state_dir_check(const char *path)
{
    struct stat status;
    const char *fault = NULL;
    char *copy = strdup(path);

    if (copy == NULL)
        log_panic("state_dir: no memory for a path");
    if (stat(path, &status) == 0) {
        fault = fault_of(&status);
        if (fault == NULL && access(path, W_OK | X_OK) < 0)
            fault = strerror(errno);
    } else if (errno != ENOENT || access(dirname(copy), W_OK | X_OK) < 0) {
        fault = strerror(errno);
    }
    if (fault != NULL)
        log_warn("setting state_dir: %s: %s: no history of runs would be kept", path, fault);
    free(copy);
}

/* --- the instance's name -------------------------------------------------------------------------------- */

/* A random name; NULL after a log line. */
static char *random_name(void)
{
    uint64_t number;
    char *name = NULL;

    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number || asprintf(&name, "%016" PRIx64, number) < 0) {
        log_error("cannot make a random name of the instance: %s", strerror(errno));
        return NULL;
    }
    return name;
}

/* The first line of the file; false, with errno, when there is none that is a name. */
static bool read_name(const struct state_dir *dir, char name[static SCOREBOARD_INSTANCE_MAX_BYTES + 2])
{
    int fd = openat(dir->fd, STATE_FILE_INSTANCE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t got;

    if (fd < 0)
        return false;
    got = read(fd, name, SCOREBOARD_INSTANCE_MAX_BYTES + 1);
    close(fd);
    if (got < 0)
        return false;
    name[got] = '\0';
    name[strcspn(name, "\n")] = '\0';
    errno = EILSEQ;
    return *name != '\0' && settings_is_name(name);
}

/* False with errno. */
static bool write_new_name(const struct state_dir *dir, const char *name)
{
    int fd = openat(dir->fd, STATE_FILE_INSTANCE_NEW, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    bool written;

    if (fd < 0)
        return false;
    written = dprintf(fd, "%s\n", name) == (int)strlen(name) + 1 && fsync(fd) == 0;
    return close(fd) == 0 && written;
}

/* Whole or not at all, whatever happens to the machine. False with errno. */
static bool write_name(const struct state_dir *dir, const char *name)
{
    int saved_errno;

    if (write_new_name(dir, name) && renameat(dir->fd, STATE_FILE_INSTANCE_NEW, dir->fd, STATE_FILE_INSTANCE) == 0 &&
        fsync(dir->fd) == 0)
        return true;
    saved_errno = errno;
    (void)unlinkat(dir->fd, STATE_FILE_INSTANCE_NEW, 0);
    errno = saved_errno;
    return false;
}

char *state_dir_instance(const struct state_dir *dir)
{
    char kept[SCOREBOARD_INSTANCE_MAX_BYTES + 2];
    char *name;

    if (dir->path != NULL && read_name(dir, kept))
        return strdup(kept);
    if (dir->path != NULL && errno != ENOENT)
        log_warn("%s/" STATE_FILE_INSTANCE ": %s: the instance gets a new name", dir->path,
                 errno == EILSEQ ? "no name" : strerror(errno));
    name = random_name();
    if (name != NULL && dir->path != NULL && !write_name(dir, name))
        log_warn("cannot keep the name of the instance in %s: %s: it gets another at the next start", dir->path,
                 strerror(errno));
    return name;
}
