/*
 * timestamp: times as clients see them: ISO 8601 in UTC with microseconds, 2026-01-31T10:00:00.123456+00:00.
 */
#ifndef WORKER_TIMESTAMP_H
#define WORKER_TIMESTAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TIMESTAMP_BYTES 48

/* Microseconds since 1970. Returns out. */
const char *timestamp_format(int64_t us, char out[static TIMESTAMP_BYTES]);
/* Also without the fraction, with one of another length, with another offset, Z, or none (UTC). */
bool timestamp_parse(const char *text, size_t length, int64_t *us) __attribute__((warn_unused_result));

#endif
