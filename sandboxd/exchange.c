#include "sandboxd/exchange.h"

#include "common/log.h"
#include "sandboxd/memory.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <stdlib.h>
#include <sys/socket.h>

/* While we answer we read nothing but the close of the connection: evhttp would take in bytes without a bound. */
#define UNREAD_MAX_BYTES 4096

struct exchange {
    struct evhttp_request *http;
    struct evhttp_connection *connection;
    void (*gone)(void *arg);
    void (*drained)(void *arg);
    void *arg;
    struct event *cut; /* of exchange_cut_later() */
};

static void exchange_free(struct exchange *exchange)
{
    if (exchange->cut != NULL)
        event_free(exchange->cut);
    free(exchange);
}

/* evhttp closes the connection, because the client did. The request was detached from it and is ours to free. */
static void on_close(struct evhttp_connection *connection, void *arg)
{
    struct exchange *exchange = arg;

    (void)connection;
    if (evhttp_request_get_connection(exchange->http) == NULL)
        evhttp_request_free(exchange->http);
    exchange->gone(exchange->arg);
    exchange_free(exchange);
}

struct exchange *exchange_new(struct evhttp_request *http, void (*gone)(void *arg), void *arg)
{
    struct exchange *exchange = memory_new(sizeof *exchange);

    exchange->http = http;
    exchange->connection = evhttp_request_get_connection(http);
    exchange->gone = gone;
    exchange->arg = arg;
    bufferevent_setwatermark(evhttp_connection_get_bufferevent(exchange->connection), EV_READ, 0, UNREAD_MAX_BYTES);
    evhttp_connection_set_closecb(exchange->connection, on_close, exchange);
    return exchange;
}

struct evhttp_request *exchange_request(const struct exchange *exchange)
{
    return exchange->http;
}

struct evhttp_request *exchange_release(struct exchange *exchange)
{
    struct evhttp_request *http = exchange->http;

    evhttp_connection_set_closecb(exchange->connection, NULL, NULL);
    bufferevent_setwatermark(evhttp_connection_get_bufferevent(exchange->connection), EV_READ, 0, 0);
    exchange_free(exchange);
    return http;
}

void exchange_stream(struct exchange *exchange, int status, void (*drained)(void *arg))
{
    exchange->drained = drained;
    evhttp_send_reply_start(exchange->http, status, NULL);
}

static void on_written(struct evhttp_connection *connection, void *arg)
{
    struct exchange *exchange = arg;

    (void)connection;
    exchange->drained(exchange->arg);
}

bool exchange_send(struct exchange *exchange, struct evbuffer *bytes)
{
    struct bufferevent *peer = evhttp_connection_get_bufferevent(exchange->connection);

    evhttp_send_reply_chunk_with_cb(exchange->http, bytes, on_written, exchange);
    return evbuffer_get_length(bufferevent_get_output(peer)) <= EXCHANGE_HIGH_WATER_BYTES;
}

void exchange_finish(struct exchange *exchange)
{
    evhttp_send_reply_end(exchange_release(exchange));
}

/*
 * On TCP a reset, which no client takes for the end of an answer: to the Python SDK a mere close within a chunk is a
 * fault of the protocol, and it does not ask whether the sandbox lives. A unix socket knows no reset, and is closed.
 */
static void reset(struct evhttp_connection *connection)
{
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};

    (void)!connect(bufferevent_getfd(evhttp_connection_get_bufferevent(connection)), &nobody, sizeof nobody);
}

void exchange_cut(struct exchange *exchange)
{
    struct evhttp_connection *connection = exchange->connection;

    reset(connection);
    /* Its events go before its descriptor: others may have references to the bufferevent, and evhttp only closes. */
    bufferevent_disable(evhttp_connection_get_bufferevent(connection), EV_READ | EV_WRITE);
    evhttp_connection_set_closecb(connection, NULL, NULL);
    exchange_free(exchange);
    evhttp_connection_free(connection);
}

void exchange_abort(struct exchange *exchange)
{
    void (*gone)(void *arg) = exchange->gone;
    void *arg = exchange->arg;

    exchange_cut(exchange);
    gone(arg);
}

static void on_cut(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    exchange_cut(arg);
}

/* Its owner has left already: nobody is told. */
static void ignore_gone(void *arg)
{
    (void)arg;
}

void exchange_cut_later(struct exchange *exchange)
{
    struct timeval now = {0};

    exchange->gone = ignore_gone;
    exchange->drained = ignore_gone;
    exchange->cut = evtimer_new(evhttp_connection_get_base(exchange->connection), on_cut, exchange);
    if (exchange->cut == NULL || evtimer_add(exchange->cut, &now) < 0)
        log_panic("out of memory");
}
