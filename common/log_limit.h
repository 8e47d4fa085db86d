/*
 * log_limit: a bound on lines that a peer can cause without end: refusals, retries, broken connections.
 *
 * Of each place in the code at most LOG_LIMIT_LINES a minute are written by one process; of the others it is said once
 * how many there were, after the minute. Our own errors are never held back: log_error() is always log_error().
 */
#ifndef COMMON_LOG_LIMIT_H
#define COMMON_LOG_LIMIT_H

#include "common/clock.h"
#include "common/log.h"

#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_LINES     30
#define LOG_LIMIT_PERIOD_MS 60000

/* One place in the code, in static memory. */
struct log_limit {
    enum log_level level;
    const char *like; /* what its lines look like: their format */
    int64_t until_ms; /* end of the minute; 0 before the first line */
    unsigned written;
    unsigned held_back;
    struct log_limit *next; /* of those that hold something back */
};

/* May a line be written now? If not it is counted. Says how many were held back in a minute that is over. */
bool log_limit_allows(struct log_limit *limit, int64_t now_ms) __attribute__((warn_unused_result));
/* The same for places nobody comes by any more. To be called every second or so. */
void log_limit_tick(int64_t now_ms);

#define LOG_LIMITED(log, its_level, format, ...)                                                                       \
    do {                                                                                                               \
        static struct log_limit limit_ = {.level = (its_level), .like = (format)};                                     \
        if (log_limit_allows(&limit_, monotonic_ms()))                                                                 \
            log(format, ##__VA_ARGS__);                                                                                \
    } while (0)

/* As log_warn() and log_info(). The format is a literal. */
#define log_warn_limited(format, ...) LOG_LIMITED(log_warn, LOG_LEVEL_WARN, format, ##__VA_ARGS__)
#define log_info_limited(format, ...) LOG_LIMITED(log_info, LOG_LEVEL_INFO, format, ##__VA_ARGS__)

#endif
