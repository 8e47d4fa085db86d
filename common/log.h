/*
 * log: lines to stderr, for a person or for journald.
 *
 * Three words for three blames: panic is our bug (logged, then abort, so that a core exists), error and fatal ends are
 * the environment (the caller returns an exit code), warn is the peer. Under systemd (JOURNAL_STREAM is set) each line
 * carries its priority as "<N>"; else it carries time, program and pid. One write(2) per line: lines of several
 * processes never mix. Whoever has stderr appended to a file can have that opened again. No secret is ever passed to
 * these functions; outside text goes through log_clean().
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>
#include <stddef.h>

/* The values are syslog's. */
enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARN = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
};

/* Longest piece of outside text in a log, in bytes before escaping (http-api.md section 17). */
#define LOG_CLEAN_MAX_BYTES 200
#define LOG_CLEAN_BUFFER    (LOG_CLEAN_MAX_BYTES * 4 + 4)

/* Names the process in the lines ("sandstorm", "worker 3"); kept as a copy. Call once per process, again after a fork.
 */
void log_open(const char *process_name);
void log_set_level(enum log_level level);
/* false when the name is none of error, warn, info, debug. */
bool log_level_parse(const char *name, enum log_level *level);

/*
 * After the file that stderr was appended to (2>>file) was renamed by whoever rotates logs: writes to a new one of the
 * old name. Does nothing when stderr is no such file. What cannot be opened is a warning, in the old one.
 */
void log_reopen(void);
/*
 * The first error that is logged from now on is also written to out, without its prefix; NULL ends that. For whoever
 * has to tell the reason of a failure elsewhere too.
 */
void log_copy_error(char *out, size_t size);

/* errno is kept across these calls. */
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Our bug: logs and aborts. */
_Noreturn void log_panic(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Outside text made fit for a log: cut to LOG_CLEAN_MAX_BYTES, control bytes as \xNN. Returns out. */
const char *log_clean(const char *text, size_t length, char out[static LOG_CLEAN_BUFFER]);

#endif
