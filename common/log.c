#include "common/log.h"

#include "common/log_sink.h"
#include "common/utf8_cut.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES   4096
#define PREFIX_MAX_BYTES 128

/* What this process is: the one piece of global state a logger cannot do without. */
static struct {
    char process_name[32];
    enum log_level level;
    bool journal;
    struct log_sink sink;
    char *copy; /* where the next error is also written; NULL: nowhere */
    size_t copy_size;
} logger = {.process_name = "sandstorm", .level = LOG_LEVEL_INFO, .sink = {.fd = STDERR_FILENO}};

static const struct {
    enum log_level level;
    const char *name;
} level_names[] = {
    {LOG_LEVEL_ERROR, "error"},
    {LOG_LEVEL_WARN, "warn"},
    {LOG_LEVEL_INFO, "info"},
    {LOG_LEVEL_DEBUG, "debug"},
};

/* JOURNAL_STREAM is inherited by every child: it names the device and inode of journald's own stream. */
static bool is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    uintmax_t device, inode;
    struct stat status;

    return stream != NULL && sscanf(stream, "%ju:%ju", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           status.st_dev == (dev_t)device && status.st_ino == (ino_t)inode;
}

void log_open(const char *process_name)
{
    snprintf(logger.process_name, sizeof logger.process_name, "%s", process_name);
    logger.journal = is_journal();
    if (logger.sink.fd != STDERR_FILENO || *logger.sink.path == '\0')
        log_sink_use_stderr(&logger.sink); /* the name it has first: later that may be another's */
}

static bool is_stderr(void)
{
    return logger.sink.fd == STDERR_FILENO;
}

bool log_use_file(const char *path)
{
    struct log_sink sink;

    if (strcmp(path, is_stderr() ? "" : logger.sink.path) == 0)
        return true;
    if (*path == '\0') {
        log_sink_use_stderr(&sink);
    } else if (!log_sink_open(&sink, path)) {
        log_error("setting log_file: %s: %s", path, strerror(errno));
        return false;
    }
    log_sink_close(&logger.sink);
    logger.sink = sink;
    return true;
}

void log_reopen(void)
{
    if (!log_sink_reopen(&logger.sink))
        log_error("cannot open %s again: %s", logger.sink.path, strerror(errno));
}

bool log_is_on(enum log_level level)
{
    return logger.level >= level;
}

bool log_is_journal(void)
{
    return logger.journal;
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
static size_t put_prefix(char *line, size_t size, enum log_level level, bool for_journal)
{
    int n;

    if (for_journal) {
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

/* A whole line; returns its length. */
static size_t make_line(char line[static LINE_MAX_BYTES], enum log_level level, bool for_journal, const char *text)
{
    size_t used = put_prefix(line, PREFIX_MAX_BYTES, level, for_journal);
    int n = snprintf(line + used, LINE_MAX_BYTES - 1 - used, "%s", text);

    if (n > 0)
        used += (size_t)n < LINE_MAX_BYTES - 1 - used ? (size_t)n : LINE_MAX_BYTES - 2 - used;
    line[used++] = '\n';
    return used;
}

/* Beside a file. A logger has nobody to report its own failure to. */
static void put_on_stderr(enum log_level level, const char *text)
{
    char line[LINE_MAX_BYTES];
    size_t length = make_line(line, level, logger.journal, text);

    if (write(STDERR_FILENO, line, length) < 0) {
        /* nowhere to say it */
    }
}

/* The log cannot be written, or can be again. */
static void __attribute__((format(printf, 1, 2))) note_fate(const char *format, ...)
{
    char text[PATH_MAX + 128], line[LINE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!is_stderr())
        put_on_stderr(LOG_LEVEL_ERROR, text);
    if (logger.sink.lost == 0)
        (void)!log_sink_write(&logger.sink, line,
                              make_line(line, LOG_LEVEL_ERROR, logger.journal && is_stderr(), text));
}

static void put_text(enum log_level level, const char *text)
{
    char line[LINE_MAX_BYTES];
    size_t length = make_line(line, level, logger.journal && is_stderr(), text);
    uint64_t lost;

    switch (log_sink_write(&logger.sink, line, length)) {
    case LOG_WRITTEN_AGAIN:
        lost = logger.sink.lost;
        logger.sink.lost = 0;
        note_fate("%" PRIu64 " lines of the log are lost: %s", lost, strerror(logger.sink.error));
        break;
    case LOG_LOST_FIRST:
        note_fate("cannot write the log, its lines are lost: %s", strerror(logger.sink.error));
        break;
    case LOG_WRITTEN:
    case LOG_LOST:
    default:
        break;
    }
    if (level <= LOG_LEVEL_ERROR && !is_stderr())
        put_on_stderr(level, text);
}

/* A line is one line, whatever somebody forgot to clean. */
static void blank_controls(char *text)
{
    for (; *text != '\0'; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
    }
}

static void __attribute__((format(printf, 2, 0))) put_line(enum log_level level, const char *format, va_list args)
{
    char text[LINE_MAX_BYTES - PREFIX_MAX_BYTES];
    int saved_errno = errno;

    if (vsnprintf(text, sizeof text, format, args) < 0)
        *text = '\0';
    blank_controls(text);
    if (level == LOG_LEVEL_ERROR && logger.copy != NULL && *logger.copy == '\0')
        snprintf(logger.copy, logger.copy_size, "%s", text);
    put_text(level, text);
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
    size_t between = utf8_cut(text, length, LOG_CLEAN_MAX_BYTES);

    if (taken - between < 4) /* else it is no UTF-8 */
        taken = between;
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
