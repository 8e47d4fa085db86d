/*
 * envd_files: what GET and POST /files share (spec/e2b.md 0.7).
 *
 * Paths are never resolved on the host: init opens the file inside the sandbox and passes the descriptor. The check of
 * its type is repeated here, because what comes from a sandbox is not trusted.
 */
#ifndef SANDBOXD_ENVD_FILES_H
#define SANDBOXD_ENVD_FILES_H

#include "sandboxd/daemon.h"

#include <sys/stat.h>

/* Checks token or signature for an operation, read or write, and user; answers and returns false when one does not fit.
 */
bool files_check_access(struct request *request, const char *operation) __attribute__((warn_unused_result));

/* The sandbox with whose token a request is signed, or NULL. */
struct sandbox *files_find_signed(const struct request *request);

/* A client's path, absolute, allocated; or NULL with what is wrong with it in *problem. */
char *files_resolve(const char *path, const char **problem) __attribute__((warn_unused_result));

/* Takes the descriptor of a regular file out of an answer to CONTROL_OPEN; or -errno. */
int files_take(struct control_message *answer, struct stat *file) __attribute__((warn_unused_result));

#endif
