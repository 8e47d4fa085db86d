/*
 * request_files: the `files` of a request: how many, how large, and paths that stay inside the agent's home (3.4).
 */
#ifndef WORKER_REQUEST_FILES_H
#define WORKER_REQUEST_FILES_H

#include <jansson.h>

#define REQUEST_FILES_MAX_COUNT 20
#define REQUEST_FILES_MAX_BYTES 10000000

/*
 * files: object of strings, keys as the caller gave them. The result has normalised paths for keys, and is the
 * caller's; NULL after an entry in errors, the first violation only.
 */
json_t *request_files_check(json_t *files, json_t *errors) __attribute__((warn_unused_result));

#endif
