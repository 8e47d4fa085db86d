#include "cli/output_dir.h"

#include "cli/write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_BYTES     256
#define TEMPORARY_NAME ".ds-%d.part" /* of a process of its own: no name that an agent's file has */

int output_dir_open(const char *path)
{
    if (mkdir(path, 0777) < 0 && errno != EEXIST)
        return -1;
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool fail(char reason[static OUTPUT_REASON_BYTES], const char *why)
{
    snprintf(reason, OUTPUT_REASON_BYTES, "%s", why);
    return false;
}

/* One name of a path. False with a reason when no file of ours may have it. */
static bool check_name(const char *name, size_t length, char reason[static OUTPUT_REASON_BYTES])
{
    if (length == 0)
        return fail(reason, "it is no relative path");
    if (length >= NAME_BYTES)
        return fail(reason, "the name is too long");
    if (strncmp(name, "..", length) == 0)
        return fail(reason, "it would be outside the folder");
    if (*name == '.')
        return fail(reason, "the name begins with a dot");
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return fail(reason, "the name holds a control character");
    }
    return true;
}

static bool check_path(const char *path, char reason[static OUTPUT_REASON_BYTES])
{
    const char *end;

    do {
        end = strchrnul(path, '/');
        if (!check_name(path, (size_t)(end - path), reason))
            return false;
        path = end + 1;
    } while (*end != '\0');
    return true;
}

/* The folder with this name in another one, made if need be; that one is closed. -1 with errno. */
static int enter(int dir, const char *name)
{
    int below = -1;

    if (mkdirat(dir, name, 0777) == 0 || errno == EEXIST)
        below = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (below < 0) {
        int saved = errno;

        close(dir);
        errno = saved;
        return -1;
    }
    close(dir);
    return below;
}

/* The folder of a path that was checked; *name is its last part. -1 with errno. */
static int enter_all(int dir, const char *path, const char **name)
{
    int at = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    const char *slash;

    while (at >= 0 && (slash = strchr(path, '/')) != NULL) {
        char part[NAME_BYTES];

        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        at = enter(at, part);
        path = slash + 1;
    }
    *name = path;
    return at;
}

/* False with errno. Nothing is left of a file that could not be completed. */
static bool put_file(int dir, const char *name, const void *bytes, size_t length)
{
    char temporary[32];
    bool written;
    int fd, saved;

    snprintf(temporary, sizeof temporary, TEMPORARY_NAME, (int)getpid());
    fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    written = write_all(fd, bytes, length);
    if (close(fd) < 0)
        written = false;
    if (written && renameat(dir, temporary, dir, name) == 0)
        return true;
    saved = errno;
    unlinkat(dir, temporary, 0);
    errno = saved;
    return false;
}

bool output_dir_write(int dir, const char *relative_path, const void *bytes, size_t length,
                      char reason[static OUTPUT_REASON_BYTES])
{
    const char *name;
    bool written;
    int at;

    if (!check_path(relative_path, reason))
        return false;
    at = enter_all(dir, relative_path, &name);
    if (at < 0)
        return fail(reason, errno == ELOOP || errno == ENOTDIR ? "a part of its path is no folder" : strerror(errno));
    written = put_file(at, name, bytes, length);
    if (!written)
        (void)fail(reason, strerror(errno));
    close(at);
    return written;
}
