/*
 * input_files: what a run was given, by size and digest, so that a file its agent left as it was is not sent back
 * (http-api.md 6.10) and its bytes need not be kept for that.
 */
#ifndef WORKER_INPUT_FILES_H
#define WORKER_INPUT_FILES_H

#include "worker/spool.h"

#include <jansson.h>

struct input_files;

/* files: object of strings, path below the home -> content. NULL for lack of memory. */
struct input_files *input_files_new(json_t *files) __attribute__((warn_unused_result));
void input_files_free(struct input_files *inputs);

/* Is there one of this path and size? Only then is a digest of the file worth making. */
bool input_files_may_be(const struct input_files *inputs, const char *path, size_t size);
/* Is what was read one of them, unchanged? The spool was made with_digest. */
bool input_files_is(const struct input_files *inputs, const char *path, struct spool *spool);

#endif
