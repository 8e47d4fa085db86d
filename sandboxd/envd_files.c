#include "sandboxd/envd_files.h"

#include "sandboxd/access.h"
#include "sandboxd/process.h"
#include "sandboxd/reply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Whether a query is signed by the holder of a sandbox's token. */
static bool is_signed(const struct request *request, const struct sandbox *sandbox, const char *operation)
{
    const char *path = request_query(request, "path");
    const char *user = request_query(request, "username");
    const char *signature = request_query(request, "signature");

    return sandbox->token[0] != '\0' && signature != NULL &&
           access_signature_fits(signature, &(struct access_signed){
                                                .path = path == NULL ? "" : path,
                                                .operation = operation,
                                                .user = user == NULL ? "" : user,
                                                .token = sandbox->token,
                                                .expiration = request_query(request, "signature_expiration"),
                                            });
}

/* Checks the token of /files; answers and returns false when it does not fit. */
static bool check_token(struct request *request, const char *operation)
{
    const char *header = request_header(request, "X-Access-Token");
    const char *expiration = request_query(request, "signature_expiration");
    const char *refusal = NULL;

    if (request->sandbox->token[0] == '\0')
        return true;
    if (header != NULL)
        refusal = access_token_equal(header, request->sandbox->token)
                      ? NULL
                      : "access token present in header but does not match";
    else if (request_query(request, "signature") == NULL)
        refusal = "missing signature query parameter";
    else if (!is_signed(request, request->sandbox, operation))
        refusal = "invalid signature";
    else if (expiration != NULL && atoll(expiration) < (long long)time(NULL))
        refusal = "signature is already expired";
    if (refusal != NULL)
        reply_error(request->http, 401, "%s", refusal);
    return refusal == NULL;
}

bool files_check_access(struct request *request, const char *operation)
{
    const char *username = request_query(request, "username");

    if (!check_token(request, operation))
        return false;
    if (username == NULL || *username == '\0' || access_user_exists(username))
        return true;
    reply_error(request->http, 401, "error looking up user '%s': user: unknown user %s", username, username);
    return false;
}

/* A search for the sandbox of a signed URL. */
struct signed_search {
    const struct request *request;
    const char *operation;
    struct sandbox *found;
};

static void visit_signed(struct sandbox *sandbox, void *arg)
{
    struct signed_search *search = arg;

    if (search->found == NULL && is_signed(search->request, sandbox, search->operation))
        search->found = sandbox;
}

struct sandbox *files_find_signed(const struct request *request)
{
    bool is_read = evhttp_request_get_command(request->http) == EVHTTP_REQ_GET;
    struct signed_search search = {.request = request, .operation = is_read ? "read" : "write"};

    sandbox_table_each(request->daemon->sandboxes, visit_signed, &search);
    return search.found;
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

char *files_resolve(const char *path, const char **problem)
{
    char *resolved = process_resolve_path(path);

    if (resolved != NULL && strlen(resolved) < CONTROL_PAYLOAD_MAX_BYTES)
        return resolved;
    *problem = resolved == NULL ? "error resolving path" : "path too long";
    free(resolved);
    return NULL;
}
