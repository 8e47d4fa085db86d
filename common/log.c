#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096
#define LOG_FILE_MODE  0640

/* What this process is: the one piece of global state a logger cannot do without. */
static struct {
    char process_name[32];
    enum log_level level;
    bool journal;
    char *copy; /* where the next error is also written; NULL: nowhere */
    size_t copy_size;
    char path[PATH_MAX]; /* of the file that stderr is appended to; "": it is no such file */
} logger = {.process_name = "sandstorm", .level = LOG_LEVEL_INFO, .journal = false};

static const struct {
    enum log_level level;
    const char *name;
} level_names[] = {
    {LOG_LEVEL_ERROR, "error"},
    {LOG_LEVEL_WARN, "warn"},
    {LOG_LEVEL_INFO, "info"},
    {LOG_LEVEL_DEBUG, "debug"},
};

/* The name it has now: later it may be another's. */
static void remember_path(void)
{
    struct stat status;
    ssize_t length;

    if (*logger.path != '\0' || fstat(STDERR_FILENO, &status) < 0 || !S_ISREG(status.st_mode) || status.st_nlink == 0 ||
        (fcntl(STDERR_FILENO, F_GETFL) & O_APPEND) == 0)
        return;
    length = readlink("/proc/self/fd/2", logger.path, sizeof logger.path - 1);
    logger.path[length > 0 ? length : 0] = '\0';
}

void log_open(const char *process_name)
{
    remember_path();
    snprintf(logger.process_name, sizeof logger.process_name, "%s", process_name);
    logger.journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_set_level(enum log_level level)
{
    logger.level = level;
}

bool log_level_parse(const char *name, enum log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (strcmp(level_names[i].name, name) == 0) {
            *level = level_names[i].level;
            return true;
        }
    }
    return false;
}

void log_reopen(void)
{
    int fd;

    if (*logger.path == '\0')
        return;
    fd = open(logger.path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, LOG_FILE_MODE);
    if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        log_warn("cannot open %s again: %s", logger.path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void log_copy_error(char *out, size_t size)
{
    logger.copy = out;
    logger.copy_size = size;
    if (out != NULL)
        *out = '\0';
}

static const char *level_name(enum log_level level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof *level_names; i++) {
        if (level_names[i].level == level)
            return level_names[i].name;
    }
    return "panic";
}

/* Writes what stands before the message; returns its length. */
static size_t put_prefix(char *line, size_t size, enum log_level level)
{
    int n;

    if (logger.journal) {
        n = snprintf(line, size, "<%d>%s: ", (int)level, logger.process_name);
    } else {
        struct timespec now;
        struct tm utc;
        char stamp[32];

        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &utc);
        strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &utc);
        n = snprintf(line, size, "%s.%03ldZ %s[%d] %s: ", stamp, now.tv_nsec / 1000000, logger.process_name,
                     (int)getpid(), level_name(level));
    }
    return n < 0 ? 0 : (size_t)n;
}

/* A line is one write, so that lines of several processes do not mix. A logger has nobody to report its own failure to.
 */
static void __attribute__((format(printf, 2, 0))) put_line(enum log_level level, const char *format, va_list args)
{
    char line[LINE_MAX_BYTES];
    int saved_errno = errno;
    size_t prefix = put_prefix(line, sizeof line - 1, level);
    size_t used = prefix;
    int n = vsnprintf(line + used, sizeof line - 1 - used, format, args);

    if (n > 0)
        used += (size_t)n < sizeof line - 1 - used ? (size_t)n : sizeof line - 2 - used;
    line[used] = '\0';
    if (level == LOG_LEVEL_ERROR && logger.copy != NULL) {
        snprintf(logger.copy, logger.copy_size, "%s", line + prefix);
        logger.copy = NULL;
    }
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0) {
        /* nowhere to say it */
    }
    errno = saved_errno;
}

#define DEFINE_LOG(name, value)                                                                                        \
    void name(const char *format, ...)                                                                                 \
    {                                                                                                                  \
        va_list args;                                                                                                  \
                                                                                                                       \
        if (logger.level < (value))                                                                                    \
            return;                                                                                                    \
        va_start(args, format);                                                                                        \
        put_line(value, format, args);                                                                                 \
        va_end(args);                                                                                                  \
    }

DEFINE_LOG(log_error, LOG_LEVEL_ERROR)
DEFINE_LOG(log_warn, LOG_LEVEL_WARN)
DEFINE_LOG(log_info, LOG_LEVEL_INFO)
DEFINE_LOG(log_debug, LOG_LEVEL_DEBUG)

void log_panic(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    put_line((enum log_level)2, format, args);
    va_end(args);
    abort();
}

const char *log_clean(const char *text, size_t length, char out[static LOG_CLEAN_BUFFER])
{
    size_t used = 0;
    size_t taken = length < LOG_CLEAN_MAX_BYTES ? length : LOG_CLEAN_MAX_BYTES;

    for (size_t i = 0; i < taken; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f)
            used += (size_t)snprintf(out + used, LOG_CLEAN_BUFFER - used, "\\x%02x", c);
        else
            out[used++] = (char)c;
    }
    if (taken < length) {
        memcpy(out + used, "...", 3);
        used += 3;
    }
    out[used] = '\0';
    return out;
}
