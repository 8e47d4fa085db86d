/*
 * filesystem_record: the records that come out of a sandbox (init/filesystem.h), as the JSON of e2b.md 0.10.
 *
 * Pure bytes in, JSON out: nothing that a sandbox writes is trusted. Zero values are left out, int64 are strings.
 */
#ifndef SANDBOXD_FILESYSTEM_RECORD_H
#define SANDBOXD_FILESYSTEM_RECORD_H

#include "sandboxd/rpc.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* EntryInfo; the caller's reference. NULL when the body is malformed. */
json_t *filesystem_entry_json(const char *body, size_t bytes) __attribute__((warn_unused_result));

/* FilesystemEvent; the caller's reference. NULL when the body is malformed. */
json_t *filesystem_event_json(const char *body, size_t bytes) __attribute__((warn_unused_result));

/* The code of a failure and its text, which is not NUL-terminated; false when the body is malformed. */
bool filesystem_failure_read(const char *body, size_t bytes, enum rpc_code *code, const char **text, size_t *text_bytes)
    __attribute__((warn_unused_result));

/* A mode in Go's letters: "-rw-r--r--", "drwxr-xr-x", "Lrwxrwxrwx", "dtrwxrwxrwx". Returns out. */
#define FILESYSTEM_PERMISSIONS_MAX_BYTES 24
const char *filesystem_permissions(mode_t mode, char out[static FILESYSTEM_PERMISSIONS_MAX_BYTES]);

/* RFC 3339 as protojson writes it: no fraction, or one of 3, 6 or 9 digits. Returns out. */
#define FILESYSTEM_TIME_MAX_BYTES 48
const char *filesystem_time(int64_t seconds, uint32_t nanoseconds, char out[static FILESYSTEM_TIME_MAX_BYTES]);

#endif
