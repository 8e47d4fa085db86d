#include "cli/write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* As the file whose place it takes. Another owner's file may stay ours if we may not give it away. */
static bool take_after(int fd, const struct stat *old)
{
    if (fchown(fd, old->st_uid, old->st_gid) < 0 && errno != EPERM)
        return false;
    return fchmod(fd, old->st_mode & 07777) == 0;
}

bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, bytes, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes += n;
        length -= (size_t)n;
    }
    return true;
}

static bool write_beside(const char *path, const char *text, size_t length, unsigned mode)
{
    struct stat old;
    bool has_old = stat(path, &old) == 0, written = false;
    char *fresh = NULL;
    int fd, saved;

    if (asprintf(&fresh, "%s.ds-%d", path, (int)getpid()) < 0)
        return false;
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd >= 0) {
        written = (!has_old || take_after(fd, &old)) && write_all(fd, text, length) && fsync(fd) == 0;
        if (close(fd) < 0 || !written || rename(fresh, path) < 0) {
            saved = errno;
            unlink(fresh);
            errno = saved;
            written = false;
        }
    }
    free(fresh);
    return written;
}

bool write_file(const char *path, const char *text, size_t length, unsigned mode)
{
    char *real = realpath(path, NULL);
    bool written = write_beside(real != NULL ? real : path, text, length, mode);

    free(real);
    return written;
}
