/* envd_files_read: GET /files, a file on its way to a client; and envd's health (spec/e2b.md 0.7). */
#include "sandboxd/envd_files.h"
#include "sandboxd/exchange.h"
#include "sandboxd/file_headers.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Read at once from a file that is sent. */
#define READ_BYTES (64 * 1024)

void envd_health(struct request *request)
{
    evhttp_add_header(evhttp_request_get_output_headers(request->http), "Cache-Control", "no-store");
    reply_empty(request->http, 204);
}

/* One file on its way to a client. */
struct download {
    struct exchange *exchange;
    struct sandbox_watch watch;
    char *path;
    int fd;
    off_t left;
    bool client_gone; /* while init's answer is awaited */
    struct evbuffer *out;
};

static void download_free(struct download *download)
{
    if (download->fd >= 0)
        close(download->fd);
    if (download->out != NULL)
        evbuffer_free(download->out);
    free(download->path);
    free(download);
}

static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct download *download = (struct download *)((char *)watch - offsetof(struct download, watch));

    if (!download->client_gone)
        exchange_cut(download->exchange);
    download_free(download);
}

static void on_sandbox_paused(struct sandbox_watch *watch)
{
    struct download *download = (struct download *)((char *)watch - offsetof(struct download, watch));

    if (!download->client_gone)
        exchange_abort(download->exchange);
}

static void on_download_gone(void *arg)
{
    struct download *download = arg;

    /* Before init answered the order still points here. */
    if (download->fd < 0) {
        download->client_gone = true;
        return;
    }
    sandbox_watch_remove(&download->watch);
    download_free(download);
}

/* Says why a file cannot be read. */
static void reply_read_error(struct evhttp_request *http, const char *path, int error)
{
    if (error == ENOENT || error == ENOTDIR)
        reply_error(http, 404, "path '%s' does not exist", path);
    else if (error == EISDIR)
        reply_error(http, 400, "path '%s' is a directory", path);
    else if (error == EINVAL || error == ENXIO)
        reply_error(http, 400, "path '%s' is not a regular file", path);
    else
        reply_error(http, 500, "error opening file '%s': %s", path, strerror(error));
}

/* Sends the next piece; called again when it was written. The promised length cannot be kept if the file shrank: a cut
 * tells the client, and waits for the loop, because a callback of the connection must not close it. */
static void download_continue(void *arg)
{
    struct download *download = arg;
    char bytes[READ_BYTES];
    size_t wanted = download->left < READ_BYTES ? (size_t)download->left : READ_BYTES;
    ssize_t got = wanted == 0 ? 0 : read(download->fd, bytes, wanted);

    if (got > 0) {
        download->left -= got;
        evbuffer_add(download->out, bytes, (size_t)got);
        (void)exchange_send(download->exchange, download->out);
        return;
    }
    sandbox_watch_remove(&download->watch);
    if (download->left > 0)
        exchange_cut_later(download->exchange);
    else
        exchange_finish(download->exchange);
    download_free(download);
}

/* Sets the headers of what comes; false when the range that is asked for is not there. */
static bool set_headers(struct download *download, const struct stat *file, bool *is_part)
{
    struct evhttp_request *http = exchange_request(download->exchange);
    struct evkeyvalq *headers = evhttp_request_get_output_headers(http);
    const char *range = evhttp_find_header(evhttp_request_get_input_headers(http), "Range");
    char text[FILE_DATE_MAX_BYTES + 64], *disposition = file_disposition(download->path);
    off_t start = 0;
    enum file_range_result result = file_range(range, file->st_size, &start, &download->left);

    *is_part = result == FILE_RANGE_PART;
    evhttp_add_header(headers, "Content-Type", "application/octet-stream");
    evhttp_add_header(headers, "Content-Disposition", disposition);
    evhttp_add_header(headers, "Last-Modified", file_date(file->st_mtime, text));
    evhttp_add_header(headers, "Accept-Ranges", "bytes");
    evhttp_add_header(headers, "Vary", "Accept-Encoding");
    free(disposition);
    if (result == FILE_RANGE_WHOLE) {
        download->left = file->st_size;
        return true;
    }
    if (result == FILE_RANGE_UNSATISFIABLE)
        snprintf(text, sizeof text, "bytes */%lld", (long long)file->st_size);
    else
        snprintf(text, sizeof text, "bytes %lld-%lld/%lld", (long long)start, (long long)(start + download->left - 1),
                 (long long)file->st_size);
    evhttp_add_header(headers, "Content-Range", text);
    return result == FILE_RANGE_PART && lseek(download->fd, start, SEEK_SET) == start;
}

/* Takes the download off its sandbox and gives the request back to be answered. */
static struct evhttp_request *download_leave(struct download *download)
{
    sandbox_watch_remove(&download->watch);
    return exchange_release(download->exchange);
}

/* Tells the client what comes, and begins. */
static void download_begin(struct download *download, const struct stat *file)
{
    char length[32];
    bool is_part;

    if (!set_headers(download, file, &is_part)) {
        struct evhttp_request *http = download_leave(download);

        evhttp_remove_header(evhttp_request_get_output_headers(http), "Content-Type");
        reply_error(http, 416, "invalid range: failed to overlap");
        download_free(download);
        return;
    }
    snprintf(length, sizeof length, "%lld", (long long)download->left);
    evhttp_add_header(evhttp_request_get_output_headers(exchange_request(download->exchange)), "Content-Length",
                      length);
    exchange_stream(download->exchange, is_part ? 206 : 200, download_continue);
    download_continue(download);
}

/* Init opened the file, or not. */
static void on_read_opened(struct control_message *answer, void *arg)
{
    struct download *download = arg;
    struct stat file;
    int fd = files_take(answer, &file);

    if (fd >= 0 && !download->client_gone) {
        download->fd = fd;
        download_begin(download, &file);
        return;
    }
    sandbox_watch_remove(&download->watch);
    if (fd >= 0)
        close(fd);
    if (!download->client_gone)
        reply_read_error(exchange_release(download->exchange), download->path, -fd);
    download_free(download);
}

void envd_files_read(struct request *request)
{
    struct download *download;
    const char *problem;
    char *path;

    if (!files_check_access(request, "read"))
        return;
    path = files_resolve(request_query(request, "path"), &problem);
    if (path == NULL) {
        reply_error(request->http, 400, "%s: '%.64s'", problem, request_query(request, "path"));
        return;
    }
    download = memory_new(sizeof *download);
    download->out = evbuffer_new();
    if (download->out == NULL)
        log_panic("out of memory");
    download->path = path;
    download->fd = -1;
    download->watch.ended = on_sandbox_ended;
    download->watch.paused = on_sandbox_paused;
    if (!sandbox_order_open(request->sandbox, path, CONTROL_OPEN_READ, on_read_opened, download)) {
        reply_error(request->http, 500, "too many requests wait for this sandbox");
        download_free(download);
        return;
    }
    sandbox_watch_add(request->sandbox, &download->watch);
    download->exchange = exchange_new(request->http, on_download_gone, download);
}
