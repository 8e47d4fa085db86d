/*
 * output_dir: the folder that an agent's files are written to, and nowhere else.
 *
 * The names come from outside. Each folder of a path is opened from the one above it and must be a folder, no symbolic
 * link; `.`, `..`, names that begin with a dot (an agent's are never sent) and control characters are refused. A file
 * is complete before it takes its name, in place of one that had it.
 */
#ifndef CLI_OUTPUT_DIR_H
#define CLI_OUTPUT_DIR_H

#include <stdbool.h>
#include <stddef.h>

#define OUTPUT_REASON_BYTES 160

/* Opens it, made first if need be (not its parents). A descriptor, or -1 with errno. */
int output_dir_open(const char *path) __attribute__((warn_unused_result));

/* Writes one file below it. False with a reason. */
bool output_dir_write(int dir, const char *relative_path, const void *bytes, size_t length,
                      char reason[static OUTPUT_REASON_BYTES]) __attribute__((warn_unused_result));

#endif
