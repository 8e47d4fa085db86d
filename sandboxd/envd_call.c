#include "sandboxd/envd_call.h"

#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <event2/bufferevent.h>
#include <stddef.h>
#include <stdlib.h>

struct envd_call {
    struct exchange *exchange;
    struct sandbox_watch watch;
    struct event *left;     /* evhttp does not see a client leave before it was answered */
    struct event *deadline; /* of Connect-Timeout-Ms, or NULL */
    void (*closed)(void *arg);
    void *arg;
};

/* What is left of a call that is over. */
struct remains {
    struct exchange *exchange;
    void (*closed)(void *arg);
    void *arg;
};

/* Frees all but the exchange; first, because its connection must not go before the events on it. */
static struct remains call_free(struct envd_call *call)
{
    const struct remains remains = {.exchange = call->exchange, .closed = call->closed, .arg = call->arg};

    event_free(call->left);
    if (call->deadline != NULL)
        event_free(call->deadline);
    free(call);
    return remains;
}

/* The same for a call that still hangs on its sandbox. */
static struct remains call_leave(struct envd_call *call)
{
    sandbox_watch_remove(&call->watch);
    return call_free(call);
}

/* The sandbox ends: a raw cut. */
static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct remains remains = call_free((struct envd_call *)((char *)watch - offsetof(struct envd_call, watch)));

    exchange_cut(remains.exchange);
    remains.closed(remains.arg);
}

/* The client left, as evhttp sees it. */
static void on_gone(void *arg)
{
    struct remains remains = call_leave(arg);

    remains.closed(remains.arg);
}

/* A pause cuts the call, as though the client had left. */
static void on_sandbox_paused(struct sandbox_watch *watch)
{
    struct remains remains = call_leave((struct envd_call *)((char *)watch - offsetof(struct envd_call, watch)));

    exchange_cut(remains.exchange);
    remains.closed(remains.arg);
}

/* The client left, as the kernel sees it. */
static void on_left(evutil_socket_t fd, short what, void *arg)
{
    struct remains remains = call_leave(arg);

    (void)fd;
    (void)what;
    exchange_cut(remains.exchange);
    remains.closed(remains.arg);
}

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct remains remains = call_leave(arg);

    (void)fd;
    (void)what;
    reply_rpc_error(exchange_release(remains.exchange), RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    remains.closed(remains.arg);
}

json_t *envd_call_read(struct request *request, const char *what)
{
    uint64_t timeout_ms = 0;
    enum rpc_timeout_result timeout = rpc_read_timeout(request_header(request, "Connect-Timeout-Ms"), &timeout_ms);
    json_t *message = request_json(request);

    if (timeout == RPC_TIMEOUT_INVALID)
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "protocol error: invalid Connect-Timeout-Ms");
    else if (timeout == RPC_TIMEOUT_OK && timeout_ms == 0)
        reply_rpc_error(request->http, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
    else if (message == NULL)
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "malformed %s request", what);
    else
        return message;
    json_decref(message);
    return NULL;
}

static evutil_socket_t connection_fd(struct evhttp_request *http)
{
    return bufferevent_getfd(evhttp_connection_get_bufferevent(evhttp_request_get_connection(http)));
}

struct envd_call *envd_call_new(struct request *request, void (*closed)(void *arg), void *arg)
{
    struct envd_call *call = memory_new(sizeof *call);
    uint64_t timeout_ms;

    call->closed = closed;
    call->arg = arg;
    if (rpc_read_timeout(request_header(request, "Connect-Timeout-Ms"), &timeout_ms) == RPC_TIMEOUT_OK) {
        const struct timeval left = {.tv_sec = (time_t)(timeout_ms / 1000),
                                     .tv_usec = (suseconds_t)(timeout_ms % 1000 * 1000)};

        call->deadline = evtimer_new(request->daemon->base, on_deadline, call);
        if (call->deadline == NULL || evtimer_add(call->deadline, &left) < 0)
            log_panic("out of memory");
    }
    call->left = event_new(request->daemon->base, connection_fd(request->http), EV_CLOSED, on_left, call);
    if (call->left == NULL || event_add(call->left, NULL) < 0)
        log_panic("out of memory");
    call->watch.ended = on_sandbox_ended;
    call->watch.paused = on_sandbox_paused;
    sandbox_watch_add(request->sandbox, &call->watch);
    call->exchange = exchange_new(request->http, on_gone, call);
    return call;
}

void envd_call_reply(struct envd_call *call, json_t *body)
{
    reply_json(exchange_release(call_leave(call).exchange), 200, body);
}

void envd_call_reply_text(struct envd_call *call, struct evbuffer *text)
{
    struct evhttp_request *http = exchange_release(call_leave(call).exchange);

    evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", RPC_UNARY_TYPE);
    evhttp_send_reply(http, 200, NULL, text);
}

void envd_call_error(struct envd_call *call, enum rpc_code code, const char *message)
{
    reply_rpc_error(exchange_release(call_leave(call).exchange), code, "%s", message);
}
