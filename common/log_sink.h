/*
 * log_sink: where lines go: standard error, or a file that is appended to. For the log and the access log.
 *
 * One write(2) per line: lines of several processes never mix, and a file that was renamed gets lines until it is
 * opened again. A line that cannot be written (a full disk, a pipe nobody reads) is lost and counted, never waited for.
 * A line that a full disk cut short is ended before the next one. Files are made with mode 0640.
 */
#ifndef COMMON_LOG_SINK_H
#define COMMON_LOG_SINK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct log_sink {
    int fd;
    char path[PATH_MAX]; /* "": standard error, when that is no file */
    uint64_t lost;       /* lines, since it was last said */
    int error;           /* errno of the last line that was lost */
};

/* What became of a line. */
enum log_fate {
    LOG_WRITTEN,
    LOG_WRITTEN_AGAIN, /* the first one after sink->lost lines: the caller says so, and sets that to 0 */
    LOG_LOST_FIRST,    /* the first one that is lost */
    LOG_LOST,
};

/* Standard error. When it is appended to a file (2>>FILE) that can be opened again. */
void log_sink_use_stderr(struct log_sink *sink);
/* A file, made if it does not exist. False with errno: the sink is unchanged. Does not close what was open. */
bool log_sink_open(struct log_sink *sink, const char *path) __attribute__((warn_unused_result));
/* The file of the same name, a new one if it was renamed. False with errno: lines go on to the old one. */
bool log_sink_reopen(struct log_sink *sink) __attribute__((warn_unused_result));
/* Leaves standard error open. */
void log_sink_close(struct log_sink *sink);
/* Could the file be opened, or made? 0, or an errno. Makes nothing. */
int log_sink_check(const char *path) __attribute__((warn_unused_result));

/* A line with its end. */
enum log_fate log_sink_write(struct log_sink *sink, const char *line, size_t length)
    __attribute__((warn_unused_result));

#endif
