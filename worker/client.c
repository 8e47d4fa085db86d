#include "worker/client.h"

#include "common/log.h"
#include "worker/timer.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* After the request evhttp reads on without limit: at most this much is kept until it is noticed (libs.md). */
#define SERVING_READ_MAX_BYTES 4096
/* A refused client gets this long to take its answer, while what it still sends is thrown away. */
#define LINGER_MS 2000

static const struct {
    int status;
    const char *reason;
    const char *detail;
} refusals[] = {
    {400, "Bad Request", "Bad Request"},
    {408, "Request Timeout", "Request timeout"},
    {413, "Payload Too Large", "Request body too large"},
    {414, "URI Too Long", "URI too long"},
    {431, "Request Header Fields Too Large", "Request header fields too large"},
};

/* True once evhttp has freed its side: bufferevent_free() clears the callbacks, our reference keeps the rest. */
static bool freed_by_evhttp(const struct client *client)
{
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;

    bufferevent_getcb(client->bufferevent, &read_cb, &write_cb, &event_cb, NULL);
    return event_cb == NULL;
}

/* --- refusing ---------------------------------------------------------------------------------------- */

/* Our own answer, since evhttp's would have another status or body; then the connection ends. */
static void refuse(struct client *client, int status)
{
    struct evbuffer *output = bufferevent_get_output(client->bufferevent);
    size_t i = 0;

    while (refusals[i].status != status)
        i++;
    client->state = CLIENT_REFUSED;
    evbuffer_add_printf(output,
                        "HTTP/1.1 %d %s\r\nServer: sandstorm\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\nConnection: close\r\n\r\n{\"detail\":\"%s\"}",
                        status, refusals[i].reason, strlen(refusals[i].detail) + strlen("{\"detail\":\"\"}"),
                        refusals[i].detail);
    bufferevent_enable(client->bufferevent, EV_WRITE);
    log_info("request refused: %d %s", status, refusals[i].detail);
    timer_start(client->timer, LINGER_MS);
}

/* The answer has left: no more will come from us. The client's end, or LINGER_MS, ends the connection. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context)
{
    struct client *client = context;

    if (client->state == CLIENT_REFUSED && info->n_deleted > 0 && evbuffer_get_length(output) == 0)
        shutdown(bufferevent_getfd(client->bufferevent), SHUT_WR);
}

static void gone(struct client *client)
{
    if (client->watcher.on_gone != NULL)
        client->watcher.on_gone(client->watcher.context);
    else
        client_abort(client);
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* The newly added bytes are the tail of the buffer. */
static enum guard_verdict feed_guard(struct client *client, struct evbuffer *input, size_t from)
{
    struct evbuffer_ptr position;
    struct evbuffer_iovec piece;
    enum guard_verdict verdict = GUARD_MORE;
    size_t end = evbuffer_get_length(input);

    while (from < end) {
        if (evbuffer_ptr_set(input, &position, from, EVBUFFER_PTR_SET) < 0 ||
            evbuffer_peek(input, -1, &position, &piece, 1) < 1)
            log_panic("client: input of %zu bytes has no byte %zu", end, from);
        verdict = request_guard_feed(&client->guard, piece.iov_base, piece.iov_len);
        if (verdict != GUARD_MORE && verdict != GUARD_COMPLETE)
            return verdict;
        from += piece.iov_len;
    }
    return verdict;
}

static void read_request(struct client *client, struct evbuffer *input, size_t from)
{
    const struct settings *settings = server_settings(client->server);
    bool head_was_complete = client->guard.head_complete;
    enum guard_verdict verdict = feed_guard(client, input, from);

    if (guard_status(verdict) != 0) {
        refuse(client, guard_status(verdict));
        evbuffer_drain(input, evbuffer_get_length(input));
    } else if (verdict == GUARD_PIPELINED) {
        evbuffer_drain(input, evbuffer_get_length(input));
        client_abort(client);
    } else if (client->guard.head_complete && !head_was_complete) {
        timer_start(client->timer, settings->body_timeout_ms);
    }
}

/* Runs before evhttp sees the bytes. What a callback drains, evhttp never sees. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *context)
{
    struct client *client = context;

    if (info->n_added == 0)
        return;
    switch (client->state) {
    case CLIENT_IDLE:
        client->state = CLIENT_READING;
        timer_start(client->timer, server_settings(client->server)->header_timeout_ms);
        read_request(client, input, info->orig_size);
        break;
    case CLIENT_READING:
        server_note_fd(client->server, bufferevent_getfd(client->bufferevent), client);
        read_request(client, input, info->orig_size);
        break;
    case CLIENT_REFUSED:
    case CLIENT_CLOSING:
        evbuffer_drain(input, evbuffer_get_length(input));
        break;
    case CLIENT_SERVING:
        evbuffer_drain(input, evbuffer_get_length(input));
        log_info("connection closed: the client sent bytes after its request");
        gone(client);
        break;
    default:
        log_panic("client: state %d", (int)client->state);
    }
}

/* The peer's FIN or reset, in every state of a stream: evhttp itself would hide it before the first reply byte. */
static void on_peer_closed(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    gone(context);
}

/* --- deadlines --------------------------------------------------------------------------------------- */

/* From the loop: nothing of evhttp is on the stack. */
static void close_now(struct client *client)
{
    struct evhttp_connection *connection = client->connection;

    if (connection != NULL) {
        client->freeing = true;
        evhttp_connection_free(connection); /* on_connection_closed() frees the client */
    } else {
        shutdown(bufferevent_getfd(client->bufferevent), SHUT_RDWR); /* evhttp sees the end and frees its side */
        client->state = CLIENT_CLOSING;
        timer_start(client->timer, LINGER_MS);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;

    (void)fd;
    (void)what;
    if (freed_by_evhttp(client)) {
        client_free(client);
        return;
    }
    switch (client->state) {
    case CLIENT_READING:
        if (request_guard_started(&client->guard))
            refuse(client, 408);
        else
            close_now(client); /* a connection that sent nothing is just closed */
        break;
    case CLIENT_REFUSED:
    case CLIENT_CLOSING:
        close_now(client);
        break;
    case CLIENT_SERVING:
    case CLIENT_IDLE:
        break;
    default:
        log_panic("client: state %d", (int)client->state);
    }
}

/* evhttp is about to free the connection, on its own or because of close_now(). */
static void on_connection_closed(struct evhttp_connection *connection, void *context)
{
    struct client *client = context;
    struct client_watcher watcher = client->watcher;

    (void)connection;
    client->connection = NULL;
    client_free(client);
    if (watcher.on_closed != NULL)
        watcher.on_closed(watcher.context);
}

/* --- life -------------------------------------------------------------------------------------------- */

struct client *client_new(struct server *server)
{
    struct client *client = calloc(1, sizeof *client);
    const struct settings *settings = server_settings(server);

    if (client == NULL)
        return NULL;
    client->server = server;
    client->state = CLIENT_READING;
    request_guard_init(&client->guard, (uint64_t)settings->body_limit_bytes);
    client->bufferevent = bufferevent_socket_new(server_base(server), -1, 0);
    client->timer = evtimer_new(server_base(server), on_timer, client);
    server_enter(server, client);
    if (client->bufferevent == NULL || client->timer == NULL ||
        evbuffer_add_cb(bufferevent_get_input(client->bufferevent), on_input, client) == NULL ||
        evbuffer_add_cb(bufferevent_get_output(client->bufferevent), on_output, client) == NULL) {
        client_free(client);
        return NULL;
    }
    bufferevent_incref(client->bufferevent);
    timer_start(client->timer, settings->header_timeout_ms);
    return client;
}

void client_free(struct client *client)
{
    server_leave(client->server, client);
    if (client->closed != NULL)
        event_free(client->closed);
    if (client->timer != NULL)
        event_free(client->timer);
    if (client->bufferevent != NULL) {
        evbuffer_remove_cb(bufferevent_get_input(client->bufferevent), on_input, client);
        evbuffer_remove_cb(bufferevent_get_output(client->bufferevent), on_output, client);
        server_forget_fd(client->server, bufferevent_getfd(client->bufferevent), client);
        bufferevent_decref(client->bufferevent);
    }
    free(client);
}

void client_free_if_gone(struct client *client)
{
    if (freed_by_evhttp(client))
        client_free(client);
}

bool client_has_request(const struct client *client)
{
    return client->state == CLIENT_SERVING ||
           (client->state == CLIENT_READING && request_guard_started(&client->guard));
}

bool client_may_ask(const struct client *client)
{
    return client->state == CLIENT_IDLE || client->state == CLIENT_READING;
}

void client_serve(struct client *client, struct evhttp_connection *connection)
{
    client->state = CLIENT_SERVING;
    client->connection = connection;
    event_del(client->timer);
    evhttp_connection_set_closecb(connection, on_connection_closed, client);
}

void client_idle(struct client *client)
{
    client->state = CLIENT_IDLE;
    request_guard_init(&client->guard, (uint64_t)server_settings(client->server)->body_limit_bytes);
}

void client_watch(struct client *client, const struct client_watcher *watcher)
{
    evutil_socket_t fd = bufferevent_getfd(client->bufferevent);

    client->watcher = *watcher;
    bufferevent_setwatermark(client->bufferevent, EV_READ, 0, SERVING_READ_MAX_BYTES);
    bufferevent_set_timeouts(client->bufferevent, NULL, NULL);
    client->closed = event_new(server_base(client->server), fd, EV_CLOSED, on_peer_closed, client);
    if (client->closed == NULL || event_add(client->closed, NULL) < 0)
        log_error("cannot watch a connection for its end; it is noticed with the next write");
}

void client_abort(struct client *client)
{
    if (client->state == CLIENT_CLOSING)
        return;
    client->state = CLIENT_CLOSING;
    event_active(client->timer, EV_TIMEOUT, 0);
}

struct bufferevent *client_bufferevent(struct client *client)
{
    return client->bufferevent;
}
