/*
 * query_string: the parameters of a request target. Pure.
 */
#ifndef WORKER_QUERY_STRING_H
#define WORKER_QUERY_STRING_H

#include "worker/span.h"

/*
 * The value of a parameter, decoded; of a repeated one the last. NULL when it is not there, or for lack of memory. The
 * caller's to free. *length may be longer than strlen() sees.
 */
char *query_string_get(struct span query, const char *name, size_t *length) __attribute__((warn_unused_result));

#endif
