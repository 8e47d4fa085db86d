/*
 * placeholder: what stands in texts of sandstorm.json for something else: ${NAME} and ${NAME:-default} for a variable
 * (http-api.md 6.7 and section 14), {{ source.path }} for a part of what fired a trigger (section 14). Pure. Texts need
 * no NUL behind them.
 */
#ifndef COMMON_PLACEHOLDER_H
#define COMMON_PLACEHOLDER_H

#include <stddef.h>

#define VARIABLE_NAME_MAX_BYTES 256

struct placeholder_variable {
    const char *name;
    size_t name_length;   /* at most VARIABLE_NAME_MAX_BYTES */
    const char *fallback; /* NULL: none */
    size_t fallback_length;
};

/* The one at the start of a text. Returns its length; 0: there is none. */
size_t placeholder_variable(const char *text, size_t length, struct placeholder_variable *variable)
    __attribute__((warn_unused_result));

/* Likewise, with what is between the braces, without blanks. */
size_t placeholder_source(const char *text, size_t length, const char **path, size_t *path_length)
    __attribute__((warn_unused_result));

#endif
