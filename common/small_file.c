#include "common/small_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* False with errno. */
static bool fill(int fd, char *text, size_t size, size_t *used)
{
    *used = 0;
    while (*used < size) {
        ssize_t n = read(fd, text + *used, size - *used);

        if (n < 0 && errno != EINTR)
            return false;
        if (n == 0)
            break;
        *used += n > 0 ? (size_t)n : 0;
    }
    return true;
}

char *small_file_read_from(int fd, size_t max_bytes, size_t *length, const char **reason)
{
    struct stat status;
    char *text = NULL;
    size_t used = 0;

    *reason = NULL;
    if (fstat(fd, &status) < 0)
        *reason = strerrordesc_np(errno);
    else if (!S_ISREG(status.st_mode))
        *reason = "not a regular file";
    else if ((uintmax_t)status.st_size > max_bytes)
        *reason = strerrordesc_np(EFBIG);
    else if ((text = calloc(1, (size_t)status.st_size + 1)) == NULL)
        *reason = strerrordesc_np(ENOMEM);
    else if (!fill(fd, text, (size_t)status.st_size, &used))
        *reason = strerrordesc_np(errno);
    if (*reason != NULL && text != NULL) {
        small_file_free(text, used);
        text = NULL;
    }
    *length = used;
    return text;
}

char *small_file_read(const char *path, size_t max_bytes, size_t *length, const char **reason)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text;

    if (fd < 0) {
        *reason = strerrordesc_np(errno);
        return NULL;
    }
    text = small_file_read_from(fd, max_bytes, length, reason);
    close(fd);
    return text;
}

void small_file_free(char *text, size_t length)
{
    if (text != NULL)
        explicit_bzero(text, length);
    free(text);
}
