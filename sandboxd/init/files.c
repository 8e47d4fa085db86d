#include "sandboxd/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Makes the missing parents of a path; false with errno. The path is changed while it works and restored after. */
static bool make_parents(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        bool made;

        *slash = '\0';
        made = mkdir(path, 0755) == 0 || errno == EEXIST;
        *slash = '/';
        /* EROFS and EACCES may mean that it exists already: the open that follows tells. */
        if (!made && errno != EROFS && errno != EACCES)
            return false;
    }
    return true;
}

/* Opens for reading or writing. O_NONBLOCK: a FIFO without a peer must not hang us; O_NOCTTY: nor a terminal take us.
 */
static int open_path(char *path, enum control_open_mode mode)
{
    int common = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

    if (mode == CONTROL_OPEN_READ)
        return open(path, O_RDONLY | common);
    return make_parents(path) ? open(path, O_WRONLY | O_CREAT | O_TRUNC | common, 0666) : -1;
}

/* 0 when the descriptor is a regular file, else the errno to report. */
static int check_regular(int fd)
{
    struct stat file;

    if (fstat(fd, &file) < 0)
        return errno;
    if (S_ISDIR(file.st_mode))
        return EISDIR;
    return S_ISREG(file.st_mode) ? 0 : EINVAL;
}

void open_file(const struct control_message *order, struct control_message *answer)
{
    char path[CONTROL_PAYLOAD_MAX_BYTES + 1];
    int fd, error;

    memcpy(path, order->payload, order->payload_bytes + 1);
    fd = open_path(path, (enum control_open_mode)order->header.flags);
    error = fd < 0 ? errno : check_regular(fd);
    answer->header.value = -error;
    if (error == 0)
        answer->fds[answer->fd_count++] = fd;
    else if (fd >= 0)
        close(fd);
}
