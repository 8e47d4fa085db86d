#include "common/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE 0640
/* A pipe without a reader fails at once, and a full one loses lines: nobody waits for a log. */
#define OPEN_FLAGS (O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)

void log_sink_use_stderr(struct log_sink *sink)
{
    struct stat status;
    ssize_t length;

    *sink = (struct log_sink){.fd = STDERR_FILENO};
    if (fstat(STDERR_FILENO, &status) < 0 || !S_ISREG(status.st_mode) || status.st_nlink == 0 ||
        (fcntl(STDERR_FILENO, F_GETFL) & O_APPEND) == 0)
        return;
    length = readlink("/proc/self/fd/2", sink->path, sizeof sink->path - 1);
    sink->path[length > 0 ? length : 0] = '\0';
}

bool log_sink_open(struct log_sink *sink, const char *path)
{
    int fd;

    if (strlen(path) >= sizeof sink->path) {
        errno = ENAMETOOLONG;
        return false;
    }
    fd = open(path, OPEN_FLAGS | O_CREAT, FILE_MODE);
    if (fd < 0)
        return false;
    *sink = (struct log_sink){.fd = fd};
    snprintf(sink->path, sizeof sink->path, "%s", path);
    return true;
}

bool log_sink_reopen(struct log_sink *sink)
{
    bool is_stderr = sink->fd == STDERR_FILENO;
    bool good = true;
    int fd;

    if (*sink->path == '\0')
        return true;
    fd = open(sink->path, OPEN_FLAGS | O_CREAT, FILE_MODE);
    if (fd < 0)
        return false;
    if (is_stderr) {
        good = dup2(fd, STDERR_FILENO) >= 0;
        close(fd);
    } else {
        close(sink->fd);
        sink->fd = fd;
    }
    return good;
}

void log_sink_close(struct log_sink *sink)
{
    if (sink->fd > STDERR_FILENO)
        close(sink->fd);
    sink->fd = -1;
}

int log_sink_check(const char *path)
{
    char directory[PATH_MAX];
    int fd = open(path, OPEN_FLAGS);
    char *slash;

    if (fd >= 0) {
        close(fd);
        return 0;
    }
    if (errno != ENOENT)
        return errno;
    if (strlen(path) >= sizeof directory)
        return ENAMETOOLONG;
    snprintf(directory, sizeof directory, "%s", path);
    slash = strrchr(directory, '/');
    if (slash == NULL)
        snprintf(directory, sizeof directory, ".");
    else
        slash[slash == directory] = '\0';
    return access(directory, W_OK | X_OK) < 0 ? errno : 0;
}

/* Does the file end within a line? Somebody's was cut short. */
static bool ends_torn(int fd)
{
    char name[32], last = '\n';
    struct stat status;
    int read_fd;

    if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode) || status.st_size == 0)
        return false;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    read_fd = open(name, O_RDONLY | O_CLOEXEC);
    if (read_fd < 0)
        return false;
    if (pread(read_fd, &last, 1, status.st_size - 1) < 0)
        last = '\n';
    close(read_fd);
    return last != '\n';
}

/* More than one write only when the first was cut short: the next one tells why. */
static bool write_all(int fd, const char *line, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, line, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        line += n;
        length -= (size_t)n;
    }
    return true;
}

enum log_fate log_sink_write(struct log_sink *sink, const char *line, size_t length)
{
    bool good = true;

    if (sink->lost > 0 && ends_torn(sink->fd))
        good = write_all(sink->fd, "\n", 1);
    if (good && write_all(sink->fd, line, length))
        return sink->lost > 0 ? LOG_WRITTEN_AGAIN : LOG_WRITTEN;
    sink->error = errno;
    return sink->lost++ == 0 ? LOG_LOST_FIRST : LOG_LOST;
}
