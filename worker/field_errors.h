/*
 * field_errors: the list of what is wrong with the fields of a request, as clients know it (http-api.md 3.6).
 *
 * An entry is {"type","loc","msg"[,"ctx"]}. The input is never in it, but for names of files, agents and skills.
 */
#ifndef WORKER_FIELD_ERRORS_H
#define WORKER_FIELD_ERRORS_H

#include "worker/coerce.h"

#include <jansson.h>

/* Where the fault is, as far as it goes: ["body"], ["body",<field>], ["body",<field>,<key or index>]. */
struct field_place {
    const char *in;    /* body, query */
    const char *field; /* NULL: the whole */
    json_t *element;   /* borrowed; NULL: the whole field */
};

/* A list has no more entries than this: what comes after is not told. A body of 16 MiB can hold millions of faults. */
#define FIELD_ERRORS_MAX 1000

bool field_errors_are_full(const json_t *errors);

/* ctx is taken over, and NULL when there is none. */
void field_error_add(json_t *errors, struct field_place place, const char *type, const char *message, json_t *ctx);
/* "Value error, <text>"; the text is valid UTF-8 and may hold NUL. */
void field_error_add_value(json_t *errors, struct field_place place, const char *text, size_t length);

void field_error_add_string_type(json_t *errors, struct field_place place);
void field_error_add_list_type(json_t *errors, struct field_place place);
void field_error_add_dict_type(json_t *errors, struct field_place place);
/* String should have at least 1 character; at most `limit`. */
void field_error_add_too_short(json_t *errors, struct field_place place);
void field_error_add_too_long(json_t *errors, struct field_place place, int limit);

/* What a coercion that did not end with COERCED says. */
void field_error_add_integer(json_t *errors, struct field_place place, enum coerced fault);
void field_error_add_number(json_t *errors, struct field_place place, enum coerced fault);
void field_error_add_bool(json_t *errors, struct field_place place, enum coerced fault);
/* True when the number is in its range, else an entry. */
bool field_error_check_range(json_t *errors, struct field_place place, int64_t number, int64_t min, int64_t max);

#endif
