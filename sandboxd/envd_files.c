#include "sandboxd/envd_files.h"

#include "sandboxd/access.h"
#include "sandboxd/process.h"
#include "sandboxd/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Checks the token of /files; answers and returns false when it does not fit. */
static bool check_token(struct request *request)
{
    const char *header = request_header(request, "X-Access-Token");

    if (request->sandbox->token[0] == '\0')
        return true;
    if (header != NULL) {
        if (access_token_equal(header, request->sandbox->token))
            return true;
        reply_error(request->http, 401, "access token present in header but does not match");
        return false;
    }
    /* Signed URLs carry no sandbox id and cannot be routed on one socket: no signature is ever valid here. */
    reply_error(request->http, 401, "%s",
                request_query(request, "signature") == NULL ? "missing signature query parameter"
                                                            : "invalid signature");
    return false;
}

bool files_check_access(struct request *request)
{
    const char *username = request_query(request, "username");

    if (!check_token(request))
        return false;
    if (username == NULL || access_user_exists(username))
        return true;
    reply_error(request->http, 401, "error looking up user '%s': user: unknown user %s", username, username);
    return false;
}

int files_take(struct control_message *answer, struct stat *file)
{
    int fd;

    if (answer->header.value != 0)
        return answer->header.value < 0 ? answer->header.value : -EIO;
    if (answer->fd_count != 1 || fstat(answer->fds[0], file) < 0 || !S_ISREG(file->st_mode))
        return -EINVAL;
    fd = answer->fds[0];
    answer->fds[0] = -1;
    return fd;
}

char *files_path(struct request *request, const char *path)
{
    char *resolved = process_resolve_path(path);

    if (resolved != NULL && strlen(resolved) < CONTROL_PAYLOAD_MAX_BYTES)
        return resolved;
    reply_error(request->http, 400, resolved == NULL ? "error resolving path '%.64s'" : "path too long: '%.64s…'",
                path);
    free(resolved);
    return NULL;
}
