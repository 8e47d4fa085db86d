/* small_file: a whole file of bounded size, which may be a secret. */
#ifndef COMMON_SMALL_FILE_H
#define COMMON_SMALL_FILE_H

#include <stddef.h>

/*
 * The rest of an open regular file, with a NUL behind it: no more than its size says now, less when it shrinks
 * meanwhile. NULL with *reason, which is not to be freed.
 */
char *small_file_read_from(int fd, size_t max_bytes, size_t *length, const char **reason)
    __attribute__((warn_unused_result));

/* Likewise by its path. Never waits for a pipe to open. */
char *small_file_read(const char *path, size_t max_bytes, size_t *length, const char **reason)
    __attribute__((warn_unused_result));

/* Wipes and frees what was read. NULL is allowed. */
void small_file_free(char *text, size_t length);

#endif
