/*
 * envd_files_write: POST /files (spec/e2b.md 0.7).
 *
 * The body is in memory when we see it (its size is bounded by the server); its files are written one after the other,
 * each as soon as init has opened it. Files that were written before one fails stay written, as in envd.
 */
#include "sandboxd/envd_files.h"
#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/multipart.h"
#include "sandboxd/reply.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* One request that writes files. */
struct upload {
    struct exchange *exchange;
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    bool client_gone; /* while init's answer is awaited */
    struct multipart parts;
    char **paths;   /* of the parts, resolved */
    size_t current; /* the part that is being opened */
};

static void upload_free(struct upload *upload)
{
    for (size_t i = 0; upload->paths != NULL && i < upload->parts.count; i++)
        free(upload->paths[i]);
    free(upload->paths);
    multipart_free(&upload->parts);
    free(upload);
}

static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct upload *upload = (struct upload *)((char *)watch - offsetof(struct upload, watch));

    if (!upload->client_gone)
        exchange_cut(upload->exchange);
    upload_free(upload);
}

/* The body goes with its request: what is not written by now is not. */
static void on_gone(void *arg)
{
    struct upload *upload = arg;

    upload->client_gone = true;
}

/* One entry for each file, in order. */
static json_t *written_entries(const struct upload *upload)
{
    json_t *entries = json_array();

    for (size_t i = 0; i < upload->parts.count; i++) {
        const char *path = upload->paths[i];
        const char *slash = strrchr(path, '/');

        json_array_append_new(entries, json_pack("{s:s, s:s, s:s}", "name", slash == NULL ? path : slash + 1, "path",
                                                 path, "type", "file"));
    }
    return entries;
}

/* Leaves the sandbox and gives the request back to be answered; NULL when nobody waits any more. */
static struct evhttp_request *upload_leave(struct upload *upload)
{
    sandbox_watch_remove(&upload->watch);
    return upload->client_gone ? NULL : exchange_release(upload->exchange);
}

/* Answers with what went wrong with the current file. */
static void upload_fail(struct upload *upload, int error)
{
    struct evhttp_request *http = upload_leave(upload);
    const char *path = upload->paths[upload->current];

    if (http == NULL) {
        /* nobody to tell */
    } else if (error == EISDIR) {
        reply_error(http, 400, "path is a directory: %s", path);
    } else if (error == ENOSPC || error == EFBIG || error == EDQUOT) {
        reply_error(http, 507, "attempted to write %zu bytes: not enough disk space available",
                    upload->parts.files[upload->current].length);
    } else {
        reply_error(http, 500, "error opening file '%s': %s", path, strerror(error));
    }
    upload_free(upload);
}

/* Writes all bytes; 0 or errno. */
static int write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);

        if (written < 0 && errno != EINTR)
            return errno;
        if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
    }
    return 0;
}

static void on_write_opened(struct control_message *answer, void *arg);

/* Opens the current file, or answers when there is none left. */
static void upload_continue(struct upload *upload)
{
    struct evhttp_request *http;

    if (upload->current < upload->parts.count && !upload->client_gone) {
        if (!sandbox_order_open(upload->sandbox, upload->paths[upload->current], CONTROL_OPEN_WRITE, on_write_opened,
                                upload))
            upload_fail(upload, EAGAIN);
        return;
    }
    http = upload_leave(upload);
    if (http != NULL)
        reply_json(http, 200, written_entries(upload));
    upload_free(upload);
}

/* Init opened the current file, or not. */
static void on_write_opened(struct control_message *answer, void *arg)
{
    struct upload *upload = arg;
    const struct multipart_file *part = &upload->parts.files[upload->current];
    struct stat file;
    int fd = files_take(answer, &file);
    int error = fd < 0 ? -fd : 0;

    if (error == 0 && !upload->client_gone)
        error = write_all(fd, part->bytes, part->length);
    if (fd >= 0)
        close(fd);
    if (error != 0) {
        upload_fail(upload, error);
        return;
    }
    upload->current++;
    upload_continue(upload);
}

/* Whether an earlier part goes to the same path. */
static bool is_duplicate(const struct upload *upload, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (strcmp(upload->paths[i], upload->paths[index]) == 0)
            return true;
    }
    return false;
}

/* Resolves the targets of all parts; answers and returns false when one has none. */
static bool resolve_paths(struct request *request, struct upload *upload)
{
    const char *path = request_query(request, "path");

    upload->paths = memory_new((upload->parts.count + 1) * sizeof *upload->paths);
    for (size_t i = 0; i < upload->parts.count; i++) {
        const char *target = path != NULL ? path : upload->parts.files[i].filename;

        if (*target == '\0') {
            reply_error(request->http, 400, "no filename in part %zu and no path query parameter", i + 1);
            return false;
        }
        upload->paths[i] = files_path(request, target);
        if (upload->paths[i] == NULL)
            return false;
        if (is_duplicate(upload, i)) {
            reply_error(request->http, 400,
                        "you cannot upload multiple files to the same path '%s' in one upload request, only the first "
                        "specified file was uploaded",
                        upload->paths[i]);
            return false;
        }
    }
    return true;
}

/* The whole body as one file. */
static bool read_raw(struct request *request, struct multipart *parts)
{
    size_t length;
    const char *body = request_body(request, &length);

    if (request_query(request, "path") == NULL) {
        reply_error(request->http, 400, "path query parameter is required for raw body upload");
        return false;
    }
    parts->files = memory_new(sizeof *parts->files);
    parts->files[0] = (struct multipart_file){.filename = strdup(""), .bytes = body, .length = length};
    parts->count = 1;
    return true;
}

static bool read_multipart(struct request *request, struct multipart *parts, const char *type)
{
    char *boundary = multipart_boundary(type);
    size_t length;
    const char *body = request_body(request, &length);
    bool parsed = boundary != NULL && multipart_parse(parts, boundary, body, length);

    if (!parsed)
        reply_error(request->http, 400, "error parsing multipart form");
    free(boundary);
    return parsed;
}

/* Finds the files of the request; answers and returns false when it has none that we understand. */
static bool read_parts(struct request *request, struct multipart *parts)
{
    const char *type = request_header(request, "Content-Type");
    const char *encoding = request_header(request, "Content-Encoding");

    if (type == NULL)
        type = "";
    if (encoding != NULL && strcasecmp(encoding, "identity") != 0) {
        reply_error(request->http, 400, "unsupported content encoding: %.64s", encoding);
        return false;
    }
    if (strncasecmp(type, "multipart/", 10) == 0)
        return read_multipart(request, parts, type);
    if (strncasecmp(type, "application/octet-stream", 24) == 0)
        return read_raw(request, parts);
    reply_error(request->http, 400,
                "unsupported content type: %.128s, expected multipart/form-data or application/octet-stream", type);
    return false;
}

void envd_files_write(struct request *request)
{
    struct upload *upload;

    if (!files_check_access(request))
        return;
    upload = memory_new(sizeof *upload);
    if (!read_parts(request, &upload->parts) || !resolve_paths(request, upload)) {
        upload_free(upload);
        return;
    }
    upload->sandbox = request->sandbox;
    upload->watch.ended = on_sandbox_ended;
    sandbox_watch_add(request->sandbox, &upload->watch);
    upload->exchange = exchange_new(request->http, on_gone, upload);
    upload_continue(upload);
}
