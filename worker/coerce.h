/*
 * coerce: JSON values taken as another type than they have, as clients of this API rely on (http-api.md 3.3).
 *
 * Numbers are judged by their text: exact, however long.
 */
#ifndef WORKER_COERCE_H
#define WORKER_COERCE_H

#include "worker/json_text.h"

#include <stdint.h>

enum coerced {
    COERCED,
    COERCE_TYPE,       /* of a type that is never taken; for booleans also a fraction, and a number beyond 64 bits */
    COERCE_PARSING,    /* a string, or for booleans a number, that means none */
    COERCE_FRACTION,   /* a JSON number with a fraction, for an integer */
    COERCE_NOT_FINITE, /* too large for a double, or a string that says inf or nan */
    COERCE_NO_MEMORY,
};

/* Beyond 64 bits *number is INT64_MAX or INT64_MIN, which range checks then refuse. */
enum coerced coerce_integer(struct json_text value, int64_t *number) __attribute__((warn_unused_result));
/* As a JSON string that holds this text. */
enum coerced coerce_integer_word(const char *word, size_t length, int64_t *number) __attribute__((warn_unused_result));
enum coerced coerce_number(struct json_text value, double *number) __attribute__((warn_unused_result));
enum coerced coerce_bool(struct json_text value, bool *flag) __attribute__((warn_unused_result));
/* A word that stands for a boolean: false when it is none. */
bool coerce_bool_word(const char *word, size_t length, bool *flag);

#endif
