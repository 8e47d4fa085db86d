/*
 * envd_files_write: POST /files (spec/e2b.md 0.7).
 *
 * A body goes through as it comes: unzipped, parted into its files, written. Each file is opened by init, and until it
 * has answered nothing goes on. Files that were written before one fails stay written, as in envd.
 */
#include "sandboxd/envd_files.h"
#include "sandboxd/exchange.h"
#include "sandboxd/file_metadata.h"
#include "sandboxd/gunzip.h"
#include "sandboxd/memory.h"
#include "sandboxd/multipart.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Unzipped bytes that are held. Above what the head of a part may take. */
#define PLAIN_MAX_BYTES ((size_t)128 * 1024)
/* Files of one request: their names are held for the answer. */
#define FILES_MAX         65536
#define MESSAGE_MAX_BYTES 8192

/* One request that writes files. */
struct upload {
    struct exchange *exchange;
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    bool client_gone;            /* while init's answer is awaited */
    bool is_complete;            /* the whole body has come */
    struct intake *intake;       /* where the body comes from; NULL: it was in the request */
    struct evbuffer *body;       /* what has come and was not taken */
    struct gunzip *gunzip;       /* NULL: the body is not zipped */
    struct evbuffer *plain;      /* unzipped */
    struct multipart *multipart; /* NULL: the body is one file */
    char *query_path;            /* of all files, or NULL */
    long long body_bytes;        /* as announced; 0: not announced */
    json_t *metadata;
    json_t *seen;    /* paths that were begun, as keys */
    json_t *entries; /* of the answer */
    bool is_opening; /* init's answer is awaited */
    char *path;      /* of the current file, or NULL */
    int fd;          /* of the current file, or -1 */
};

/* Reads no more. */
static void upload_leave_intake(struct upload *upload)
{
    if (upload->intake != NULL)
        intake_leave(upload->intake);
    upload->intake = NULL;
}

static void upload_free(struct upload *upload)
{
    if (upload->fd >= 0)
        close(upload->fd);
    upload_leave_intake(upload);
    evbuffer_free(upload->body);
    evbuffer_free(upload->plain);
    gunzip_free(upload->gunzip);
    multipart_free(upload->multipart);
    json_decref(upload->metadata);
    json_decref(upload->seen);
    json_decref(upload->entries);
    free(upload->query_path);
    free(upload->path);
    free(upload);
}

static struct upload *upload_of(struct sandbox_watch *watch)
{
    return (struct upload *)((char *)watch - offsetof(struct upload, watch));
}

static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct upload *upload = upload_of(watch);

    upload_leave_intake(upload);
    if (!upload->client_gone)
        exchange_cut(upload->exchange);
    upload_free(upload);
}

static void on_sandbox_paused(struct sandbox_watch *watch)
{
    struct upload *upload = upload_of(watch);

    upload_leave_intake(upload);
    if (!upload->client_gone)
        exchange_abort(upload->exchange);
}

/* What is not written by now is not. */
static void on_gone(void *arg)
{
    struct upload *upload = arg;

    upload->client_gone = true;
    upload_leave_intake(upload);
    /* An order that is not answered points here. */
    if (upload->is_opening)
        return;
    sandbox_watch_remove(&upload->watch);
    upload_free(upload);
}

/* --- answers -------------------------------------------------------------------------------------- */

/* Leaves the sandbox and answers with what went wrong. */
__attribute__((format(printf, 3, 4))) static void upload_fail(struct upload *upload, int status, const char *format,
                                                              ...)
{
    char message[MESSAGE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    sandbox_watch_remove(&upload->watch);
    upload_leave_intake(upload);
    reply_error(exchange_release(upload->exchange), status, "%s", message);
    upload_free(upload);
}

/* Whether an error says that the disk, or an allowance on it, is used up. */
static bool is_full(int error)
{
    return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

static void fail_opening(struct upload *upload, int error)
{
    if (error == EISDIR)
        upload_fail(upload, 400, "path is a directory: %s", upload->path);
    else if (is_full(error))
        upload_fail(upload, 507, "not enough inodes available: %s", strerror(error));
    else
        upload_fail(upload, 500, "error opening file '%s': %s", upload->path, strerror(error));
}

static void fail_writing(struct upload *upload, int error)
{
    if (is_full(error) && upload->body_bytes > 0)
        upload_fail(upload, 507, "attempted to write %lld bytes: not enough disk space available", upload->body_bytes);
    else if (is_full(error))
        upload_fail(upload, 507, "not enough disk space available");
    else
        upload_fail(upload, 500, "error writing file '%s': %s", upload->path, strerror(error));
}

static void upload_succeed(struct upload *upload)
{
    sandbox_watch_remove(&upload->watch);
    upload_leave_intake(upload);
    reply_json_as_text(exchange_release(upload->exchange), json_incref(upload->entries));
    upload_free(upload);
}

/* --- one file ------------------------------------------------------------------------------------- */

static void upload_run(struct upload *upload);

/* Init opened the current file, or not. */
static void on_opened(struct control_message *answer, void *arg)
{
    struct upload *upload = arg;
    struct stat file;

    upload->is_opening = false;
    upload->fd = files_take(answer, &file);
    if (upload->client_gone) {
        sandbox_watch_remove(&upload->watch);
        upload_free(upload);
    } else if (upload->fd < 0) {
        fail_opening(upload, -upload->fd);
    } else {
        upload_run(upload);
    }
}

/* Resolves where a file goes; false after the answer said why it goes nowhere. */
static bool resolve(struct upload *upload, const char *target)
{
    const char *problem;

    if (*target == '\0') {
        upload_fail(upload, 400, "no filename in a part named file, and no path query parameter");
        return false;
    }
    free(upload->path);
    upload->path = files_resolve(target, &problem);
    if (upload->path == NULL)
        upload_fail(upload, 400, "%s: '%.64s'", problem, target);
    else if (json_object_get(upload->seen, upload->path) != NULL)
        upload_fail(upload, 400,
                    "you cannot upload multiple files to the same path '%s' in one upload request, only the first "
                    "specified file was uploaded",
                    upload->path);
    else if (json_object_size(upload->seen) == FILES_MAX)
        upload_fail(upload, 400, "more than %d files in one request", FILES_MAX);
    else if (json_object_set_new(upload->seen, upload->path, json_null()) < 0)
        upload_fail(upload, 400, "a path is not UTF-8");
    else
        return true;
    return false;
}

/* Orders the file that begins; false when the upload is over. */
static bool begin_file(struct upload *upload)
{
    const char *name = upload->multipart == NULL ? "" : multipart_filename(upload->multipart);

    if (!resolve(upload, upload->query_path != NULL ? upload->query_path : name))
        return false;
    upload->is_opening = sandbox_order_open(upload->sandbox, upload->path, CONTROL_OPEN_WRITE, on_opened, upload);
    if (!upload->is_opening)
        fail_opening(upload, EAGAIN);
    return upload->is_opening;
}

/* Writes bytes of the current file; false when the upload is over. */
static bool write_bytes(struct upload *upload, size_t length)
{
    while (length > 0) {
        int written = evbuffer_write_atmost(upload->plain, upload->fd, (ev_ssize_t)length);

        if (written < 0 && errno != EINTR) {
            fail_writing(upload, errno);
            return false;
        }
        length -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

/* Adds the file that has ended to the answer; false when the upload is over. */
static bool end_file(struct upload *upload)
{
    const char *slash = strrchr(upload->path, '/');
    json_t *entry = json_pack("{s:s, s:s, s:s}", "name", slash == NULL ? upload->path : slash + 1, "path", upload->path,
                              "type", "file");
    int error = file_metadata_write(upload->fd, upload->metadata);
    json_t *kept = file_metadata_read(upload->fd);

    if (kept != NULL)
        json_object_set_new(entry, "metadata", kept);
    json_array_append_new(upload->entries, entry);
    close(upload->fd);
    upload->fd = -1;
    if (error == 0)
        return true;
    if (is_full(error))
        upload_fail(upload, 507, "not enough space for file metadata: %s", strerror(error));
    else
        upload_fail(upload, 500, "error writing file metadata: %s", strerror(error));
    return false;
}

/* --- the body ------------------------------------------------------------------------------------- */

/* Moves on what has come; false after the answer said that it cannot be unzipped. */
static bool unzip(struct upload *upload)
{
    bool is_cut;

    if (upload->gunzip == NULL) {
        evbuffer_add_buffer(upload->plain, upload->body);
        return true;
    }
    if (gunzip_step(upload->gunzip, upload->body, upload->plain, PLAIN_MAX_BYTES)) {
        is_cut = upload->is_complete && evbuffer_get_length(upload->body) == 0 && !gunzip_is_whole(upload->gunzip);
        if (!is_cut)
            return true;
    }
    upload_fail(upload, 400, "error decompressing request body: not gzip, or cut");
    return false;
}

/* The body as one file, in the words of multipart. */
static enum multipart_event next_of_raw(const struct upload *upload, size_t *length)
{
    *length = evbuffer_get_length(upload->plain);
    if (upload->fd < 0)
        return json_array_size(upload->entries) > 0 ? MULTIPART_END : MULTIPART_FILE;
    if (*length > 0)
        return MULTIPART_BYTES;
    return upload->is_complete && evbuffer_get_length(upload->body) == 0 ? MULTIPART_FILE_END : MULTIPART_MORE;
}

/* Does the next thing; false when nothing more can be done now, or the upload is over. */
static bool upload_step(struct upload *upload)
{
    size_t length = 0;

    if (!unzip(upload))
        return false;
    switch (upload->multipart == NULL ? next_of_raw(upload, &length)
                                      : multipart_next(upload->multipart, upload->plain, &length)) {
    case MULTIPART_FILE:
        (void)begin_file(upload);
        return false;
    case MULTIPART_BYTES:
        return write_bytes(upload, length);
    case MULTIPART_FILE_END:
        return end_file(upload);
    case MULTIPART_END:
        upload_succeed(upload);
        return false;
    case MULTIPART_MORE:
        if (evbuffer_get_length(upload->body) > 0)
            return true;
        if (!upload->is_complete)
            return false;
        break;
    case MULTIPART_MALFORMED:
    case MULTIPART_AGAIN:
        break;
    }
    upload_fail(upload, 400, "error parsing multipart form");
    return false;
}

static void upload_run(struct upload *upload)
{
    while (upload_step(upload)) {
        if (upload->intake != NULL)
            intake_continue(upload->intake);
    }
}

/* More of the body came. */
static void on_more(void *arg, bool is_complete)
{
    struct upload *upload = arg;

    upload->is_complete = is_complete;
    if (!upload->is_opening)
        upload_run(upload);
}

/* The client is gone, or speaks no HTTP. */
static void on_broken(void *arg)
{
    struct upload *upload = arg;

    upload_leave_intake(upload);
    exchange_abort(upload->exchange);
}

static const struct intake_reader intake_reader = {.more = on_more, .broken = on_broken};

/* --- the request ---------------------------------------------------------------------------------- */

/* Reads how the body is to be read; answers and returns false when we do not understand it. */
static bool read_form(struct request *request, struct upload *upload)
{
    const char *type = request_header(request, "Content-Type");
    const char *encoding = request_header(request, "Content-Encoding");
    char *boundary;

    type = type == NULL ? "" : type;
    if (encoding != NULL && strcasecmp(encoding, "gzip") == 0) {
        upload->gunzip = gunzip_new();
    } else if (encoding != NULL && strcasecmp(encoding, "identity") != 0) {
        reply_error(request->http, 400, "unsupported content encoding: %.64s", encoding);
        return false;
    }
    if (strncasecmp(type, "application/octet-stream", 24) == 0) {
        if (upload->query_path == NULL)
            reply_error(request->http, 400, "path query parameter is required for raw body upload");
        return upload->query_path != NULL;
    }
    if (strncasecmp(type, "multipart/", 10) != 0) {
        reply_error(request->http, 400,
                    "unsupported content type: %.128s, expected multipart/form-data or application/octet-stream", type);
        return false;
    }
    boundary = multipart_boundary(type);
    if (boundary == NULL)
        reply_error(request->http, 400, "error parsing multipart form: no boundary");
    else
        upload->multipart = multipart_new(boundary);
    free(boundary);
    return upload->multipart != NULL;
}

/* Reads the metadata; answers and returns false when it is wrong. */
static bool read_metadata(struct request *request, struct upload *upload)
{
    const char *problem;

    upload->metadata = file_metadata_parse(evhttp_request_get_input_headers(request->http), &problem);
    if (upload->metadata == NULL)
        reply_error(request->http, 400, "invalid metadata: %s", problem);
    return upload->metadata != NULL;
}

static struct upload *upload_new(const struct request *request)
{
    struct upload *upload = memory_new(sizeof *upload);
    const char *path = request_query(request, "path");
    const char *length = request_header(request, "Content-Length");

    upload->fd = -1;
    upload->sandbox = request->sandbox;
    upload->watch.ended = on_sandbox_ended;
    upload->watch.paused = on_sandbox_paused;
    upload->body = evbuffer_new();
    upload->plain = evbuffer_new();
    upload->seen = json_object();
    upload->entries = json_array();
    upload->query_path = path == NULL ? NULL : strdup(path);
    if (request->intake != NULL)
        upload->body_bytes = intake_body_bytes(request->intake);
    else
        upload->body_bytes = length == NULL ? 0 : atoll(length);
    if (upload->body == NULL || upload->plain == NULL || (path != NULL && upload->query_path == NULL))
        log_panic("out of memory");
    return upload;
}

void envd_files_write(struct request *request)
{
    struct upload *upload;

    if (!files_check_access(request, "write"))
        return;
    upload = upload_new(request);
    if (!read_form(request, upload) || !read_metadata(request, upload)) {
        upload_free(upload);
        return;
    }
    upload->intake = request->intake;
    if (upload->intake != NULL) {
        upload->is_complete = intake_take(upload->intake, request->http, upload->body, &intake_reader, upload);
    } else {
        evbuffer_add_buffer(upload->body, evhttp_request_get_input_buffer(request->http));
        upload->is_complete = true;
    }
    sandbox_watch_add(request->sandbox, &upload->watch);
    upload->exchange = exchange_new(request->http, on_gone, upload);
    upload_run(upload);
}
