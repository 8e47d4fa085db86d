/*
 * request_files: the `files` of a request: how many, how large, and paths that stay inside the agent's home (3.4).
 */
#ifndef WORKER_REQUEST_FILES_H
#define WORKER_REQUEST_FILES_H

#include <jansson.h>
#include <stdbool.h>

#define REQUEST_FILES_MAX_COUNT 20
#define REQUEST_FILES_MAX_BYTES 10000000

/* The first rule, before the contents are even decoded: there may be a million. False after an entry in errors. */
bool request_files_check_count(size_t count, json_t *errors) __attribute__((warn_unused_result));
/*
 * The other rules. files: object of strings, keys as the caller gave them. The result has normalised paths for keys,
 * and is the caller's; NULL after an entry in errors, the first violation only.
 */
json_t *request_files_check(json_t *files, json_t *errors) __attribute__((warn_unused_result));

#endif
