#include "sandboxd/envd_stream.h"

#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define KEEPALIVE_DEFAULT_S 90
#define KEEPALIVE_MAX_S     3600

struct envd_stream {
    struct exchange *exchange;
    struct sandbox_watch watch;
    struct event *keepalive;
    struct event *deadline; /* of Connect-Timeout-Ms, or NULL */
    struct timeval interval;
    bool begun;
    bool quiet;
    struct evbuffer *out;
    const struct envd_stream_owner *owner;
    void *arg;
};

static void stream_free(struct envd_stream *stream)
{
    event_free(stream->keepalive);
    if (stream->deadline != NULL)
        event_free(stream->deadline);
    evbuffer_free(stream->out);
    free(stream);
}

/* Tells the owner that the stream is no more. */
static void stream_close(struct envd_stream *stream)
{
    stream->owner->closed(stream->arg);
    stream_free(stream);
}

/* The sandbox ends: a raw cut. */
static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct envd_stream *stream = (struct envd_stream *)((char *)watch - offsetof(struct envd_stream, watch));

    exchange_cut(stream->exchange);
    stream_close(stream);
}

/* A pause cuts the stream, as though the client had left. */
static void on_sandbox_paused(struct sandbox_watch *watch)
{
    exchange_abort(((struct envd_stream *)((char *)watch - offsetof(struct envd_stream, watch)))->exchange);
}

/* The client left. */
static void on_gone(void *arg)
{
    struct envd_stream *stream = arg;

    sandbox_watch_remove(&stream->watch);
    stream_close(stream);
}

static void on_drained(void *arg)
{
    struct envd_stream *stream = arg;

    stream->owner->drained(stream->arg);
}

/* Headers, before the first envelope. */
static void begin(struct envd_stream *stream)
{
    struct evhttp_request *http = exchange_request(stream->exchange);

    if (stream->begun)
        return;
    stream->begun = true;
    evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", RPC_STREAM_TYPE);
    exchange_stream(stream->exchange, 200, on_drained);
}

bool envd_stream_send(struct envd_stream *stream, const char *message, size_t bytes)
{
    begin(stream);
    if (!stream->quiet)
        evtimer_add(stream->keepalive, &stream->interval);
    rpc_put_envelope(stream->out, 0, message, bytes);
    return exchange_send(stream->exchange, stream->out);
}

static void on_keepalive(evutil_socket_t fd, short what, void *arg)
{
    struct envd_stream *stream = arg;

    (void)fd;
    (void)what;
    (void)envd_stream_send(stream, stream->owner->keepalive, strlen(stream->owner->keepalive));
}

void envd_stream_quiet(struct envd_stream *stream)
{
    stream->quiet = true;
    evtimer_del(stream->keepalive);
}

/* Sends the end and gives the exchange up. */
static void finish(struct envd_stream *stream, json_t *error)
{
    sandbox_watch_remove(&stream->watch);
    begin(stream);
    rpc_put_end(stream->out, error);
    (void)exchange_send(stream->exchange, stream->out);
    exchange_finish(stream->exchange);
    json_decref(error);
}

void envd_stream_end(struct envd_stream *stream, json_t *error)
{
    finish(stream, error);
    stream_free(stream);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct envd_stream *stream = arg;

    (void)fd;
    (void)what;
    finish(stream, rpc_error(RPC_DEADLINE_EXCEEDED, "context deadline exceeded"));
    stream_close(stream);
}

int envd_keepalive_seconds(const char *text)
{
    char *end;
    long seconds;

    if (text == NULL)
        return KEEPALIVE_DEFAULT_S;
    seconds = strtol(text, &end, 10);
    if (end == text || *end != '\0')
        return KEEPALIVE_DEFAULT_S;
    if (seconds < 1)
        return 1;
    return seconds > KEEPALIVE_MAX_S ? KEEPALIVE_MAX_S : (int)seconds;
}

bool envd_stream_read(struct request *request, const char *what, struct envd_stream_call *call)
{
    const char *payload = NULL;
    size_t bytes, payload_bytes = 0;
    const char *body = request_body(request, &bytes);
    enum rpc_request_result found = rpc_read_request(body, bytes, &payload, &payload_bytes);
    enum rpc_timeout_result timeout =
        rpc_read_timeout(request_header(request, "Connect-Timeout-Ms"), &call->deadline_ms);

    call->has_deadline = timeout == RPC_TIMEOUT_OK;
    call->message = found == RPC_REQUEST_OK ? json_loadb(payload, payload_bytes, 0, NULL) : NULL;
    if (found == RPC_REQUEST_NONE)
        reply_stream_error(request->http, RPC_UNIMPLEMENTED, "unary request has zero messages");
    else if (timeout == RPC_TIMEOUT_INVALID)
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "protocol error: invalid Connect-Timeout-Ms");
    else if (!json_is_object(call->message))
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "malformed %s request", what);
    else
        return true;
    json_decref(call->message);
    return false;
}

struct envd_stream *envd_stream_new(struct request *request, const struct envd_stream_call *call,
                                    const struct envd_stream_owner *owner, void *arg)
{
    struct envd_stream *stream = memory_new(sizeof *stream);
    const struct timeval left = {.tv_sec = (time_t)(call->deadline_ms / 1000),
                                 .tv_usec = (suseconds_t)(call->deadline_ms % 1000 * 1000)};

    stream->owner = owner;
    stream->arg = arg;
    stream->out = evbuffer_new();
    stream->keepalive = evtimer_new(request->daemon->base, on_keepalive, stream);
    stream->interval.tv_sec = envd_keepalive_seconds(request_header(request, "Keepalive-Ping-Interval"));
    if (call->has_deadline)
        stream->deadline = evtimer_new(request->daemon->base, on_deadline, stream);
    if (stream->out == NULL || stream->keepalive == NULL ||
        (call->has_deadline && (stream->deadline == NULL || evtimer_add(stream->deadline, &left) < 0)))
        log_panic("out of memory");
    stream->watch.ended = on_sandbox_ended;
    stream->watch.paused = on_sandbox_paused;
    sandbox_watch_add(request->sandbox, &stream->watch);
    stream->exchange = exchange_new(request->http, on_gone, stream);
    return stream;
}
