#include "master/pid_file.h"

#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE      0644
#define TEXT_MAX_BYTES 16

bool pid_file_check(const char *path)
{
    const char *fault = NULL;
    struct stat status;
    char *copy;

    if (*path == '\0')
        return true;
    copy = strdup(path);
    if (copy == NULL || access(dirname(copy), W_OK | X_OK) < 0)
        fault = strerror(errno);
    else if (lstat(path, &status) == 0 && !S_ISREG(status.st_mode))
        fault = "it is there, and no file";
    free(copy);
    if (fault != NULL)
        log_error("setting pid_file: %s: %s", path, fault);
    return fault == NULL;
}

/* What a pid file may hold: a number or nothing. Whatever else is there was put there by mistake. */
static bool is_pid(int fd)
{
    char text[TEXT_MAX_BYTES + 1];
    ssize_t length = pread(fd, text, sizeof text, 0);
    ssize_t digits = 0;

    while (digits < length && isdigit((unsigned char)text[digits]))
        digits++;
    return length >= 0 && length <= TEXT_MAX_BYTES &&
           (digits == length || (digits == length - 1 && text[digits] == '\n'));
}

bool pid_file_is_free(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = *path != '\0' ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) : -1;
    bool is_free = true;

    if (*path == '\0' || (fd < 0 && errno == ENOENT))
        return true;
    if (fd < 0 || fcntl(fd, F_GETLK, &lock) < 0) {
        log_error("setting pid_file: %s: %s", path, strerror(errno));
        is_free = false;
    } else if (lock.l_type != F_UNLCK) {
        log_error("pid_file %s is held by another server, pid %d: stop that one, or give this one another pid_file",
                  path, (int)lock.l_pid);
        is_free = false;
    } else if (!is_pid(fd)) {
        log_error("setting pid_file: %s is no pid file, and is left alone", path);
        is_free = false;
    }
    if (fd >= 0)
        close(fd);
    return is_free;
}

/* Under another name, locked. -1 with errno. */
static int make_new(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, FILE_MODE);
    int saved_errno;

    if (fd < 0)
        return -1;
    if (fcntl(fd, F_SETLK, &lock) == 0 && ftruncate(fd, 0) == 0 && dprintf(fd, "%d\n", (int)getpid()) > 0)
        return fd;
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return -1;
}

void pid_file_write(struct pid_file *file, const char *path)
{
    char *fresh = NULL;

    if (*path == '\0')
        return;
    file->path = strdup(path);
    if (file->path == NULL || asprintf(&fresh, "%s.new", path) < 0)
        log_panic("pid_file: no memory for a path");
    file->fd = make_new(fresh);
    if (file->fd < 0 || rename(fresh, path) < 0) {
        log_error("cannot write pid_file %s: %s", path, strerror(errno));
        if (file->fd >= 0)
            (void)unlink(fresh);
        pid_file_remove(file);
    }
    free(fresh);
}

void pid_file_adopt(struct pid_file *file, const char *path, int fd)
{
    *file = PID_FILE_NONE;
    if (fd < 0)
        return;
    file->fd = fd;
    file->path = strdup(path);
    if (file->path == NULL)
        log_panic("pid_file: no memory for a path");
}

/* Does the name still mean what we hold? */
static bool is_ours(const struct pid_file *file)
{
    struct stat named, held;

    return file->fd >= 0 && lstat(file->path, &named) == 0 && fstat(file->fd, &held) == 0 &&
           named.st_ino == held.st_ino && named.st_dev == held.st_dev;
}

void pid_file_remove(struct pid_file *file)
{
    if (file->path != NULL && is_ours(file) && unlink(file->path) < 0)
        log_warn("cannot remove pid_file %s: %s", file->path, strerror(errno));
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    *file = PID_FILE_NONE;
}
