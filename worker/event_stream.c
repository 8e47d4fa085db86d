#include "worker/event_stream.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/client.h"
#include "worker/memory_watch.h"
#include "worker/timer.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

static const char ping[] = ": ping\n\n";

/* An event whose payload is still to be made. */
struct queued_source {
    struct event_source source;
    bool begun;
    STAILQ_ENTRY(queued_source) link;
};

STAILQ_HEAD(source_list, queued_source);

struct event_stream {
    struct client *client;
    struct access_entry *access;    /* NULL: none */
    struct evhttp_request *request; /* NULL once evhttp has freed it */
    struct evbuffer *output;        /* of the connection */
    struct evbuffer *pending;       /* put, not yet flushed: waits for the sources before it */
    int socket;                     /* takes chunks at once; -1: only evhttp can send them */
    struct source_list sources;
    struct event *pump;  /* makes the next pieces of the sources, from the loop */
    struct event *timer; /* ping and stall */
    struct event_stream_handlers handlers;
    bool ended; /* handlers are not called any more */
    bool full;  /* on_drained is owed */
    bool aborted;
    bool lacking; /* an event, or a part of one, for lack of memory: nothing more is put, and the loop cuts the
                     connection */
    size_t high_water_bytes;
    int64_t ping_interval_ms;
    int64_t stall_timeout_ms;
    int64_t last_queued_ms; /* a byte was put into the output */
    int64_t last_taken_ms;  /* the socket took a byte, or the output was empty */
};

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context);

static void drop_first_source(struct event_stream *stream)
{
    struct queued_source *queued = STAILQ_FIRST(&stream->sources);

    STAILQ_REMOVE_HEAD(&stream->sources, link);
    queued->source.free(queued->source.state);
    free(queued);
}

/* The connection, and with it its output, still exists. */
static void stream_free(struct event_stream *stream)
{
    evbuffer_remove_cb(stream->output, on_output, stream);
    while (!STAILQ_EMPTY(&stream->sources))
        drop_first_source(stream);
    if (stream->pump != NULL)
        event_free(stream->pump);
    if (stream->timer != NULL)
        event_free(stream->timer);
    if (stream->pending != NULL)
        evbuffer_free(stream->pending);
    free(stream);
}

/* May be called inside libcurl: the connection is cut from the loop. */
static void note_lack(struct event_stream *stream)
{
    if (stream->aborted)
        return;
    stream->lacking = true;
    event_active(stream->timer, EV_TIMEOUT, 0);
}

static void tell_gone(struct event_stream *stream, const char *reason)
{
    bool told = stream->ended;

    stream->ended = true;
    event_stream_abort(stream);
    if (!told)
        stream->handlers.on_gone(stream->handlers.context, reason);
    else
        log_info_limited("connection closed, the end of a run's stream was not taken: %s", reason);
}

/* --- connection --------------------------------------------------------------------------------------- */

static void on_client_gone(void *context)
{
    tell_gone(context, "the client closed the connection");
}

/* evhttp frees the connection: after the last flush, after an abort, or because a write failed. */
static void on_connection_closed(void *context)
{
    struct event_stream *stream = context;
    bool told = stream->ended;

    /* After a failed write evhttp leaves the request to us; in the other cases it frees it itself. */
    if (stream->request != NULL && evhttp_request_get_connection(stream->request) == NULL)
        evhttp_request_free(stream->request);
    stream->request = NULL;
    stream->ended = stream->aborted = true;
    if (!told)
        stream->handlers.on_gone(stream->handlers.context, "the connection failed");
    stream_free(stream);
}

/* Each byte that enters or leaves the connection's output passes here. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context)
{
    struct event_stream *stream = context;

    if (info->n_added > 0) {
        stream->last_queued_ms = monotonic_ms();
        if (info->orig_size == 0)
            stream->last_taken_ms = stream->last_queued_ms;
    }
    if (info->n_deleted == 0)
        return;
    stream->last_taken_ms = monotonic_ms();
    if (evbuffer_get_length(output) >= stream->high_water_bytes / 2)
        return;
    if (!STAILQ_EMPTY(&stream->sources))
        event_active(stream->pump, 0, 0);
    if (stream->full && !stream->ended) {
        stream->full = false;
        stream->handlers.on_drained(stream->handlers.context);
    }
}

/* --- sources ------------------------------------------------------------------------------------------- */

static void send_pending(struct event_stream *stream)
{
    unsigned long refusals = memory_refusals();

    metrics_add(METRIC_STREAM_BYTES, evbuffer_get_length(stream->pending));
    if (evbuffer_get_length(stream->pending) > 0)
        evhttp_send_reply_chunk(stream->request, stream->pending);
    if (memory_refusals() != refusals)
        note_lack(stream);
}

/* Its length in hexadecimal before it, and CRLF after both. */
static void frame_chunk(struct evbuffer *chunk)
{
    char head[2 * sizeof(size_t) + 2], *at = head + sizeof head;
    size_t left = evbuffer_get_length(chunk);

    *--at = '\n';
    *--at = '\r';
    do {
        *--at = "0123456789abcdef"[left % 16];
        left /= 16;
    } while (left > 0);
    evbuffer_prepend(chunk, at, (size_t)(head + sizeof head - at));
    evbuffer_add(chunk, "\r\n", 2);
}

/*
 * What evhttp_send_reply_chunk() does, but the socket is tried first. evhttp has the loop ask whether it takes bytes,
 * which it nearly always does: two system calls an event beside the one that writes. What it does not take, or a failed
 * write, is left to evhttp.
 */
static void send_at_once(struct event_stream *stream)
{
    struct bufferevent *bufferevent = client_bufferevent(stream->client);
    size_t length = evbuffer_get_length(stream->pending);
    unsigned long refusals = memory_refusals();

    metrics_add(METRIC_STREAM_BYTES, length);
    bufferevent_disable(bufferevent, EV_WRITE);
    frame_chunk(stream->pending);
    evbuffer_add_buffer(stream->output, stream->pending);
    evbuffer_unfreeze(stream->output, 1);
    (void)evbuffer_write(stream->output, stream->socket);
    evbuffer_freeze(stream->output, 1);
    if (evbuffer_get_length(stream->output) > 0)
        bufferevent_enable(bufferevent, EV_WRITE);
    if (memory_refusals() != refusals)
        note_lack(stream);
}

/* The final chunk. evhttp frees the request with the last byte. */
static void send_end(struct event_stream *stream)
{
    struct evhttp_request *request = stream->request;

    stream->request = NULL;
    access_answered(stream->access);
    evhttp_send_reply_end(request);
}

/* One piece of the first source, in a chunk of its own. False: the connection is being cut. */
static bool send_piece(struct event_stream *stream)
{
    struct queued_source *queued = STAILQ_FIRST(&stream->sources);
    struct evbuffer *piece = evbuffer_new();
    enum event_source_result result = EVENT_SOURCE_BROKEN;
    unsigned long refusals = memory_refusals();

    if (piece != NULL && (queued->begun || evbuffer_add(piece, "data: ", 6) == 0))
        result = queued->source.next(queued->source.state, piece);
    queued->begun = true;
    if (result == EVENT_SOURCE_END && evbuffer_add(piece, "\n\n", 2) < 0)
        result = EVENT_SOURCE_BROKEN;
    if (result != EVENT_SOURCE_BROKEN) {
        metrics_add(METRIC_STREAM_BYTES, evbuffer_get_length(piece));
        evhttp_send_reply_chunk(stream->request, piece);
    }
    if (piece != NULL)
        evbuffer_free(piece);
    if (result == EVENT_SOURCE_BROKEN || memory_refusals() != refusals) {
        tell_gone(stream, "an event for the client could not be made");
        return false;
    }
    if (result == EVENT_SOURCE_END)
        drop_first_source(stream);
    return true;
}

/* What the client has room for; then what was put behind the sources, and the end. */
static void on_pump(evutil_socket_t fd, short what, void *context)
{
    struct event_stream *stream = context;

    (void)fd;
    (void)what;
    while (!STAILQ_EMPTY(&stream->sources)) {
        if (stream->aborted || stream->request == NULL ||
            evbuffer_get_length(stream->output) >= stream->high_water_bytes || !send_piece(stream))
            return;
    }
    if (stream->aborted || stream->request == NULL)
        return;
    send_pending(stream);
    if (stream->ended && !stream->lacking)
        send_end(stream);
}

/* --- ping and stall ------------------------------------------------------------------------------------ */

/* The timer looks at numbers that events move; it is not set again per event. */
static void arm_timer(struct event_stream *stream)
{
    int64_t period_ms = stream->stall_timeout_ms / 4;
    int64_t wait_ms;

    if (stream->ping_interval_ms > 0) {
        wait_ms = stream->last_queued_ms + stream->ping_interval_ms - monotonic_ms();
        if (wait_ms > 0 && wait_ms < period_ms)
            period_ms = wait_ms;
        else if (stream->ping_interval_ms < period_ms)
            period_ms = stream->ping_interval_ms;
    }
    timer_start(stream->timer, period_ms);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct event_stream *stream = context;
    int64_t now_ms = monotonic_ms();
    bool waiting = evbuffer_get_length(stream->output) > 0;

    (void)fd;
    (void)what;
    if (stream->lacking) {
        tell_gone(stream, "an event for the client could not be made: out of memory");
        return;
    }
    if (waiting && now_ms - stream->last_taken_ms >= stream->stall_timeout_ms) {
        tell_gone(stream, "the client took nothing for client_stall_timeout");
        return;
    }
    if (!waiting && !stream->ended && STAILQ_EMPTY(&stream->sources) && stream->ping_interval_ms > 0 &&
        now_ms - stream->last_queued_ms >= stream->ping_interval_ms) {
        evbuffer_add(stream->pending, ping, sizeof ping - 1);
        event_stream_flush(stream);
    }
    arm_timer(stream);
}

/* --- the public side ----------------------------------------------------------------------------------- */

static void send_head(struct exchange *exchange, const char *run_id)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);

    access_status(server_access(exchange), 200);
    server_add_headers(exchange);
    evhttp_add_header(headers, "Content-Type", "text/event-stream; charset=utf-8");
    evhttp_add_header(headers, "Cache-Control", "no-store");
    evhttp_add_header(headers, "X-Accel-Buffering", "no");
    evhttp_add_header(headers, "X-Sandstorm-Run-Id", run_id);
    evhttp_send_reply_start(exchange->request, 200, "OK");
}

/* What was asked for and answered is on its way: of the headers evhttp still reads, in the end, whether to close. */
static void forget_headers(struct evhttp_request *request)
{
    struct evkeyvalq *answered = evhttp_request_get_output_headers(request);

    evhttp_clear_headers(evhttp_request_get_input_headers(request));
    evhttp_clear_headers(answered);
    evhttp_add_header(answered, "Connection", "close");
}

/* The answer to an HTTP/1.0 client has no chunks: evhttp ends it when nothing waits, so something has to. */
static int socket_for_chunks(struct exchange *exchange)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);

    return evhttp_find_header(headers, "Transfer-Encoding") != NULL ? client_socket(exchange->client) : -1;
}

struct event_stream *event_stream_open(struct exchange *exchange, const char *run_id,
                                       const struct event_stream_handlers *handlers)
{
    struct event_stream *stream = calloc(1, sizeof *stream);
    const struct settings *settings = server_settings(exchange->server);

    if (stream == NULL)
        goto failed;
    stream->client = exchange->client;
    stream->access = server_access(exchange);
    stream->request = exchange->request;
    stream->handlers = *handlers;
    stream->high_water_bytes = (size_t)settings->output_buffer_bytes;
    stream->ping_interval_ms = settings->ping_interval_ms;
    stream->stall_timeout_ms = settings->client_stall_timeout_ms;
    stream->last_queued_ms = stream->last_taken_ms = monotonic_ms();
    stream->output = bufferevent_get_output(client_bufferevent(exchange->client));
    stream->pending = evbuffer_new();
    STAILQ_INIT(&stream->sources);
    stream->timer = evtimer_new(server_base(exchange->server), on_timer, stream);
    if (stream->pending == NULL || stream->timer == NULL ||
        evbuffer_add_cb(stream->output, on_output, stream) == NULL) {
        stream_free(stream);
        goto failed;
    }
    client_watch(
        exchange->client,
        &(struct client_watcher){.on_gone = on_client_gone, .on_closed = on_connection_closed, .context = stream});
    client_keep(exchange->client);
    evbuffer_drain(evhttp_request_get_input_buffer(exchange->request), exchange->body_length); /* it was parsed */
    send_head(exchange, run_id);
    stream->socket = socket_for_chunks(exchange);
    forget_headers(exchange->request);
    arm_timer(stream);
    return stream;

failed:
    server_reply_internal(exchange, "out of memory");
    return NULL;
}

static char *append(char *at, const char *bytes, size_t length)
{
    memcpy(at, bytes, length);
    return at + length;
}

static size_t count_of(const char *line, size_t length, char wanted)
{
    size_t count = 0;

    for (const char *end = line + length; (line = memchr(line, wanted, (size_t)(end - line))) != NULL; line++)
        count++;
    return count;
}

/* A CR inside the line would end it for an SSE parser: it starts a further data line of the same event. */
static bool put_event(struct evbuffer *pending, const char *line, size_t length)
{
    const char *end = line + length, *cr;
    size_t bytes = 6 + length + 2 + count_of(line, length, '\r') * 6;
    struct evbuffer_iovec space;
    char *at;

    if (evbuffer_reserve_space(pending, (ev_ssize_t)bytes, &space, 1) < 1)
        return false;
    at = append(space.iov_base, "data: ", 6);
    while ((cr = memchr(line, '\r', (size_t)(end - line))) != NULL) {
        at = append(at, line, (size_t)(cr - line));
        at = append(at, "\ndata: ", 7);
        line = cr + 1;
    }
    at = append(at, line, (size_t)(end - line));
    append(at, "\n\n", 2);
    space.iov_len = bytes;
    evbuffer_commit_space(pending, &space, 1);
    return true;
}

void event_stream_put_line(struct event_stream *stream, const char *line, size_t length)
{
    if (stream->ended || stream->lacking)
        return;
    metrics_add(METRIC_EVENTS, 1);
    access_event(stream->access);
    if (!put_event(stream->pending, line, length))
        note_lack(stream);
}

void event_stream_put_source(struct event_stream *stream, const struct event_source *source)
{
    struct queued_source *queued = stream->ended || stream->lacking ? NULL : malloc(sizeof *queued);

    event_stream_flush(stream);
    if (stream->pump == NULL)
        stream->pump = event_new(bufferevent_get_base(client_bufferevent(stream->client)), -1, 0, on_pump, stream);
    if (queued == NULL || stream->pump == NULL) {
        free(queued);
        source->free(source->state);
        note_lack(stream);
        return;
    }
    metrics_add(METRIC_EVENTS, 1);
    access_event(stream->access);
    *queued = (struct queued_source){.source = *source};
    STAILQ_INSERT_TAIL(&stream->sources, queued, link);
    event_active(stream->pump, 0, 0);
}

void event_stream_put_json(struct event_stream *stream, json_t *event)
{
    char *text = event != NULL ? json_dumps_whole(event, JSON_COMPACT) : NULL;

    if (text != NULL)
        event_stream_put_line(stream, text, strlen(text));
    else
        note_lack(stream);
    free(text);
    json_decref(event);
}

void event_stream_flush(struct event_stream *stream)
{
    if (stream->aborted || stream->request == NULL || !STAILQ_EMPTY(&stream->sources) ||
        evbuffer_get_length(stream->pending) == 0)
        return;
    if (stream->socket >= 0 && evbuffer_get_length(stream->output) == 0)
        send_at_once(stream);
    else
        send_pending(stream);
}

bool event_stream_full(struct event_stream *stream)
{
    if (evbuffer_get_length(stream->output) + evbuffer_get_length(stream->pending) >= stream->high_water_bytes)
        stream->full = true;
    return stream->full;
}

void event_stream_end(struct event_stream *stream)
{
    stream->ended = true;
    if (stream->aborted || stream->request == NULL || !STAILQ_EMPTY(&stream->sources))
        return;
    send_pending(stream); /* it leaves with the end */
    if (!stream->lacking)
        send_end(stream);
}

void event_stream_abort(struct event_stream *stream)
{
    stream->ended = true;
    if (stream->aborted)
        return;
    stream->aborted = true;
    client_abort(stream->client);
}
