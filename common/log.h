/*
 * log: lines for a person or for journald, to standard error or to a file.
 *
 * Three words for three blames: panic is our bug (logged, then abort, so that a core exists), error and fatal ends are
 * the environment (the caller returns an exit code), warn is the peer. On a standard error that is journald's
 * (JOURNAL_STREAM names it) each line carries its priority as "<N>", and journald gives the time; else it carries time,
 * program and pid. With a file errors go to standard error as well, where whoever starts a service looks for them.
 *
 * One write(2) per line: lines of several processes never mix. Lines that cannot be written are counted, which is said
 * once it works again. No secret is ever passed to these functions; outside text goes through log_clean(). Lines that a
 * peer can cause without end go through log_limit.h.
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

/*
 * Names the process in the lines ("sandstorm", "worker 3"); kept as a copy. Call once per process, again after a fork:
 * lines go to standard error then, and the descriptor of a file is whoever's who closes all he does not know.
 */
void log_open(const char *process_name);
/* The file of the setting log_file, "": standard error. False after a line that says why: nothing changed. */
bool log_use_file(const char *path) __attribute__((warn_unused_result));
/*
 * Opens the file, or the one that standard error is appended to (2>>FILE), again: it was renamed by whoever rotates
 * logs. One that cannot be opened is an error, in the old one.
 */
void log_reopen(void);
void log_set_level(enum log_level level);
/* false when the name is none of error, warn, info, debug. */
bool log_level_parse(const char *name, enum log_level *level);
/* Are lines of this level written? */
bool log_is_on(enum log_level level);
/* Is standard error journald's? Then lines to it begin with "<N>". */
bool log_is_journal(void);

/*
 * The first error that is logged from now on is also written to out, without its prefix; NULL ends that. For whoever
 * has to tell the reason of a failure elsewhere too; in shared memory, also that of a child.
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
