#include "sandboxd/gate.h"

#include "common/log.h"
#include "common/log_limit.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/util.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEAD_MAX_BYTES         8192
#define HEAD_TIMEOUT_S         10
#define CONNECT_TIMEOUT_S      30
#define RELAY_HIGH_WATER_BYTES (256 * 1024)
/* Connections of one sandbox at once. */
#define CONNECTIONS_MAX 128

enum gate_state {
    GATE_HEAD,       /* the CONNECT head is being read */
    GATE_CONNECTING, /* the name is resolved, the connection made */
    GATE_RELAYING,   /* bytes go both ways */
    GATE_REFUSING,   /* an error answer is on its way out, then it closes */
};

/* One connection out of a sandbox. */
struct connection {
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    const struct gate *gate;
    enum gate_state state;
    bool is_proxied; /* the client speaks CONNECT and waits for an answer */
    struct endpoint target;
    struct bufferevent *inside;
    struct bufferevent *outside; /* NULL before CONNECTING */
    unsigned finished;           /* directions at their end */
};

static void connection_free(struct connection *connection)
{
    connection->sandbox->gate_connections--;
    bufferevent_free(connection->inside);
    if (connection->outside != NULL)
        bufferevent_free(connection->outside);
    free(connection);
}

static void connection_close(struct connection *connection)
{
    sandbox_watch_remove(&connection->watch);
    connection_free(connection);
}

static void on_sandbox_ended(struct sandbox_watch *watch)
{
    connection_free((struct connection *)((char *)watch - offsetof(struct connection, watch)));
}

/* Answers the client of the proxy, if it is one that waits for an answer, and closes. */
static void refuse(struct connection *connection, const char *status, const char *text)
{
    char cleaned[LOG_CLEAN_BUFFER];

    log_info_limited("sandbox %s: gate refuses %s:%u: %s", connection->sandbox->id,
                     log_clean(connection->target.host, strlen(connection->target.host), cleaned),
                     connection->target.port, text);
    if (!connection->is_proxied) {
        connection_close(connection);
        return;
    }
    connection->state = GATE_REFUSING;
    evbuffer_add_printf(
        bufferevent_get_output(connection->inside),
        "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n", status,
        strlen(text) + 1, text);
    bufferevent_disable(connection->inside, EV_READ);
    bufferevent_enable(connection->inside, EV_WRITE);
}

/* --- relaying ------------------------------------------------------------------------------------- */

static struct bufferevent *other_side(const struct connection *connection, const struct bufferevent *side)
{
    return side == connection->inside ? connection->outside : connection->inside;
}

/* Bytes came from one side: they go to the other, whose full buffer stops the reading here. */
static void on_relay_read(struct bufferevent *side, void *arg)
{
    struct connection *connection = arg;
    struct evbuffer *out = bufferevent_get_output(other_side(connection, side));

    evbuffer_add_buffer(out, bufferevent_get_input(side));
    if (evbuffer_get_length(out) > RELAY_HIGH_WATER_BYTES)
        bufferevent_disable(side, EV_READ);
}

/* One direction is at its end and written out: tells the receiver, and closes after the second. */
static void finish_direction(struct connection *connection, struct bufferevent *receiver)
{
    shutdown(bufferevent_getfd(receiver), SHUT_WR);
    if (++connection->finished == 2)
        connection_close(connection);
}

/* The flag that a side's reading has ended is that its events are no more enabled and its callback is gone. */
static bool is_at_end(struct bufferevent *side)
{
    bufferevent_data_cb read_callback = NULL;

    bufferevent_getcb(side, &read_callback, NULL, NULL, NULL);
    return read_callback == NULL;
}

/* All was written to one side: the other may be read again, or, at its end, the end is passed on. */
static void on_relay_written(struct bufferevent *side, void *arg)
{
    struct connection *connection = arg;
    struct bufferevent *source = other_side(connection, side);

    if (is_at_end(source))
        finish_direction(connection, side);
    else
        bufferevent_enable(source, EV_READ);
}

/* A side ended or broke. */
static void on_relay_event(struct bufferevent *side, short what, void *arg)
{
    struct connection *connection = arg;
    struct bufferevent *receiver = other_side(connection, side);

    if ((what & BEV_EVENT_EOF) == 0 || (what & BEV_EVENT_WRITING) != 0) {
        connection_close(connection);
        return;
    }
    on_relay_read(side, connection);
    bufferevent_disable(side, EV_READ);
    bufferevent_setcb(side, NULL, on_relay_written, on_relay_event, connection);
    if (evbuffer_get_length(bufferevent_get_output(receiver)) == 0)
        finish_direction(connection, receiver);
}

static void start_relaying(struct connection *connection)
{
    connection->state = GATE_RELAYING;
    bufferevent_set_timeouts(connection->outside, NULL, NULL);
    bufferevent_setwatermark(connection->inside, EV_READ, 0, 0);
    bufferevent_setcb(connection->inside, on_relay_read, on_relay_written, on_relay_event, connection);
    bufferevent_setcb(connection->outside, on_relay_read, on_relay_written, on_relay_event, connection);
    if (connection->is_proxied)
        evbuffer_add_printf(bufferevent_get_output(connection->inside), "HTTP/1.1 200 Connection established\r\n\r\n");
    bufferevent_enable(connection->inside, EV_READ | EV_WRITE);
    bufferevent_enable(connection->outside, EV_READ | EV_WRITE);
    /* What the client sent behind its head. */
    on_relay_read(connection->inside, connection);
}

/* --- connecting ----------------------------------------------------------------------------------- */

static void on_connect_event(struct bufferevent *outside, short what, void *arg)
{
    struct connection *connection = arg;

    (void)outside;
    if ((what & BEV_EVENT_CONNECTED) != 0)
        start_relaying(connection);
    else
        refuse(connection, "502 Bad Gateway", "the endpoint cannot be reached");
}

/* Connects to an allowed endpoint. Its name was given by the operator: addresses are not judged. */
static void start_connecting(struct connection *connection, const struct endpoint *target)
{
    const struct timeval limit = {.tv_sec = CONNECT_TIMEOUT_S};

    connection->state = GATE_CONNECTING;
    connection->target = *target;
    bufferevent_disable(connection->inside, EV_READ);
    bufferevent_set_timeouts(connection->inside, NULL, NULL);
    connection->outside = bufferevent_socket_new(connection->gate->base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (connection->outside == NULL) {
        refuse(connection, "502 Bad Gateway", "out of memory");
        return;
    }
    bufferevent_setcb(connection->outside, NULL, NULL, on_connect_event, connection);
    bufferevent_set_timeouts(connection->outside, NULL, &limit);
    bufferevent_enable(connection->outside, EV_WRITE);
    if (bufferevent_socket_connect_hostname(connection->outside, connection->gate->dns, AF_UNSPEC, target->host,
                                            target->port) < 0)
        refuse(connection, "502 Bad Gateway", "the endpoint cannot be reached");
}

/* --- the head ------------------------------------------------------------------------------------- */

/* More of the CONNECT head came. */
static void on_head_read(struct bufferevent *inside, void *arg)
{
    struct connection *connection = arg;
    struct evbuffer *input = bufferevent_get_input(inside);
    size_t length = evbuffer_get_length(input), head_bytes = 0;
    const char *bytes = (const char *)evbuffer_pullup(input, -1);
    const struct endpoint *allowed;

    switch (connect_head_parse(bytes, length, &connection->target, &head_bytes)) {
    case CONNECT_HEAD_INCOMPLETE:
        if (length >= HEAD_MAX_BYTES)
            refuse(connection, "431 Request Header Fields Too Large", "the head of the request is too large");
        return;
    case CONNECT_HEAD_BAD:
        refuse(connection, "405 Method Not Allowed", "this proxy takes CONNECT host:port only");
        return;
    case CONNECT_HEAD_OK:
        break;
    }
    evbuffer_drain(input, head_bytes);
    allowed = endpoint_find(connection->gate->allowed, &connection->target);
    if (allowed == NULL)
        refuse(connection, "403 Forbidden", "this endpoint is not in the setting network_allow");
    else
        start_connecting(connection, allowed);
}

/* The refusal was written. */
static void on_inside_written(struct bufferevent *inside, void *arg)
{
    struct connection *connection = arg;

    (void)inside;
    if (connection->state == GATE_REFUSING)
        connection_close(connection);
}

/* The client closed or was too slow, before it was connected. */
static void on_inside_event(struct bufferevent *inside, short what, void *arg)
{
    (void)inside;
    (void)what;
    connection_close(arg);
}

/* Whether a descriptor out of a sandbox is the stream socket it should be; makes it non-blocking. */
static bool is_stream_socket(int fd)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer, type_length = sizeof(int);
    int type = 0;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length) == 0 && type == SOCK_STREAM &&
           getpeername(fd, (struct sockaddr *)&peer, &length) == 0 && evutil_make_socket_nonblocking(fd) == 0;
}

/* Puts a connection on the loop; NULL when it cannot be, and the descriptor is closed. */
static struct connection *connection_new(const struct gate *gate, struct sandbox *sandbox, int fd)
{
    struct connection *connection = calloc(1, sizeof *connection);

    if (connection == NULL || !is_stream_socket(fd) ||
        (connection->inside = bufferevent_socket_new(gate->base, fd, BEV_OPT_CLOSE_ON_FREE)) == NULL) {
        free(connection);
        close(fd);
        return NULL;
    }
    connection->gate = gate;
    connection->sandbox = sandbox;
    connection->watch.ended = on_sandbox_ended;
    sandbox_watch_add(sandbox, &connection->watch);
    sandbox->gate_connections++;
    bufferevent_setcb(connection->inside, on_head_read, on_inside_written, on_inside_event, connection);
    return connection;
}

void gate_accepted(struct sandbox *sandbox, unsigned listener, int fd, void *arg)
{
    const struct gate *gate = arg;
    const struct timeval limit = {.tv_sec = HEAD_TIMEOUT_S};
    struct connection *connection;

    if (sandbox->gate_connections >= CONNECTIONS_MAX) {
        close(fd);
        return;
    }
    connection = connection_new(gate, sandbox, fd);
    if (connection == NULL)
        return;
    if (listener != SANDBOX_PROXY_LISTENER) {
        start_connecting(connection, &gate->allowed->entries[listener - 1]);
        return;
    }
    connection->is_proxied = true;
    bufferevent_setwatermark(connection->inside, EV_READ, 0, HEAD_MAX_BYTES);
    bufferevent_set_timeouts(connection->inside, &limit, NULL);
    bufferevent_enable(connection->inside, EV_READ);
}
