/* format: figures as people read them, and members of JSON objects as C has them. */
#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

#include "common/duration_text.h"

#include <jansson.h>
#include <stddef.h>

#define FORMAT_BYTES DURATION_TEXT_BYTES

/* Each returns out. "512 B", "3.4 KiB", "12.0 MiB". */
const char *format_size(double bytes, char out[static FORMAT_BYTES]);

/* Of a record or report; "-" for a null, of what may be outside text as it is. */
const char *format_cost(const json_t *value, char out[static FORMAT_BYTES]);
const char *format_count(const json_t *value, char out[static FORMAT_BYTES]);
const char *format_seconds(const json_t *value, char out[static FORMAT_BYTES]);
/* 2026-01-31T10:00:00.123456+00:00 as "2026-01-31 10:00:00". */
const char *format_instant(const json_t *value, char out[static FORMAT_BYTES]);
const char *format_text(const json_t *value);
/* Likewise, for tables of these functions. */
const char *format_string(const json_t *value, char out[static FORMAT_BYTES]);

/* The string with this key; NULL when there is none. */
const char *field_string(const json_t *object, const char *key);
/* The number with this key; 0 when there is none. */
double field_number(const json_t *object, const char *key);

#endif
