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

/* Checks token and user; answers and returns false when one does not fit. */
bool files_check_access(struct request *request) __attribute__((warn_unused_result));

/* A client's path, absolute, allocated; answers and returns NULL when it cannot be one. */
char *files_path(struct request *request, const char *path) __attribute__((warn_unused_result));

/* Takes the descriptor of a regular file out of an answer to CONTROL_OPEN; or -errno. */
int files_take(struct control_message *answer, struct stat *file) __attribute__((warn_unused_result));

#endif
