/*
 * file_metadata: what a client attaches to a file by X-Metadata-<Key> headers, kept as the extended attributes
 * user.e2b.<key> (spec/e2b.md 0.7).
 */
#ifndef SANDBOXD_FILE_METADATA_H
#define SANDBOXD_FILE_METADATA_H

#include <event2/keyvalq_struct.h>
#include <jansson.h>

#define FILE_METADATA_PREFIX "user.e2b."

/* The metadata of a request, an object of strings, the caller's; NULL, with what is wrong in *problem. */
json_t *file_metadata_parse(const struct evkeyvalq *headers, const char **problem) __attribute__((warn_unused_result));

/* Gives a file this metadata and no other; 0 or errno. A filesystem without extended attributes keeps none: 0. */
int file_metadata_write(int fd, const json_t *metadata) __attribute__((warn_unused_result));

/* What a file has, the caller's; NULL when it has none. */
json_t *file_metadata_read(int fd) __attribute__((warn_unused_result));

#endif
