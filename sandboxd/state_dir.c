#include "sandboxd/state_dir.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_FILE   "api-key"
#define LOCK_FILE  "lock"
#define KEY_PREFIX "e2b_"
#define KEY_BYTES  20

/* Whether nobody else can put anything into it; says so when not. */
static bool is_private(const char *path, int dir_fd)
{
    struct stat status;

    if (fstat(dir_fd, &status) < 0)
        log_error("state directory %s: %s", path, strerror(errno));
    else if (status.st_uid != geteuid())
        log_error("state directory %s: belongs to another user", path);
    else if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        log_error("state directory %s: others may write into it: chmod 700", path);
    else
        return true;
    return false;
}

/* Locks it. The lock's descriptor stays open with the process. */
static bool take_lock(const char *path, int dir_fd)
{
    int fd = openat(dir_fd, LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (fd >= 0 && errno == EWOULDBLOCK)
        log_error("state directory %s: in use by another sandboxd", path);
    else
        log_error("state directory %s: %s: %s", path, LOCK_FILE, strerror(errno));
    if (fd >= 0)
        close(fd);
    return false;
}

int state_dir_open(const char *path)
{
    int fd;

    if (mkdir(path, 0700) < 0 && errno != EEXIST) {
        log_error("state directory %s: %s", path, strerror(errno));
        return -1;
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        log_error("state directory %s: %s", path, strerror(errno));
    if (fd < 0 || (is_private(path, fd) && take_lock(path, fd)))
        return fd;
    close(fd);
    return -1;
}

/* Writes a new key. A failure leaves no file. */
static bool write_key(int dir_fd, int fd)
{
    unsigned char bytes[KEY_BYTES];
    char line[sizeof KEY_PREFIX + 2 * KEY_BYTES + 1] = KEY_PREFIX;
    size_t used = strlen(KEY_PREFIX);

    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        log_panic("getrandom: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bytes; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%02x", bytes[i]);
    line[used++] = '\n';
    if (write(fd, line, used) == (ssize_t)used)
        return true;
    unlinkat(dir_fd, KEY_FILE, 0);
    return false;
}

char *state_dir_key_file(const char *path, int dir_fd)
{
    int fd = openat(dir_fd, KEY_FILE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool good = fd >= 0 ? write_key(dir_fd, fd) : errno == EEXIST;
    char *file = NULL;

    if (!good)
        log_error("state directory %s: %s: %s", path, KEY_FILE, strerror(errno));
    else if (asprintf(&file, "%s/" KEY_FILE, path) < 0)
        log_panic("out of memory");
    else if (fd >= 0)
        log_info("a new API key is in %s", file);
    if (fd >= 0)
        close(fd);
    return file;
}
