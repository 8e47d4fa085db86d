/*
 * variables: ${NAME} and ${NAME:-default} in texts of sandstorm.json (http-api.md 6.7 and section 14). What only looks
 * like a reference stays as it is.
 */
#ifndef WORKER_VARIABLES_H
#define WORKER_VARIABLES_H

#include "common/environment.h"
#include "common/placeholder.h"

#include <jansson.h>

struct variables {
    const struct environment *environment;
    char missing[VARIABLE_NAME_MAX_BYTES + 1]; /* the one that is neither set nor has a default; "" so far */
};

/*
 * Takes the string over and gives what stands in its place. NULL when a variable is missing, is not UTF-8, or for lack
 * of memory. A map() of json_text_rewrite(), whose context is a struct variables.
 */
json_t *variables_expand(json_t *string, void *variables);

#endif
