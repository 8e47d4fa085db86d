#include "sandboxd/gate.h"

#include "common/log.h"
#include "common/log_limit.h"
#include "sandboxd/proxy_request.h"
#include "sandboxd/relay.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/util.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* From accept to a whole request. */
#define HEAD_TIMEOUT_S 10
/* From there to a connection, the name and all its addresses included; and for one of several addresses. */
#define CONNECT_TIMEOUT_S 30
#define ADDRESS_TIMEOUT_S 10
/* For the caller to take a refusal and close. */
#define REFUSE_TIMEOUT_S 5
#define WHY_MAX_BYTES    128
#define TEXT_MAX_BYTES   (2 * ENDPOINT_TEXT_MAX_BYTES + WHY_MAX_BYTES + 128)

enum gate_state {
    GATE_HEAD,       /* the request is being read */
    GATE_RESOLVING,  /* its name is looked up */
    GATE_CONNECTING, /* to one address after the other */
    GATE_RELAYING,   /* bytes go both ways; the relay has the sockets */
    GATE_REFUSING,   /* an error answer is on its way out, then it closes */
};

/* One connection out of a sandbox. */
struct connection {
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    struct gate *gate;
    enum gate_state state;
    struct proxy_request request;
    bool is_greeted;       /* SOCKS: the methods were agreed on */
    bool is_allowed;       /* the operator named the endpoint: its addresses are not judged */
    bool is_denied;        /* an address was passed over because of the create's own rules */
    const char *forbidden; /* what an address was that was passed over; NULL: none was */
    struct lookup *lookup; /* while RESOLVING */
    struct address_list addresses;
    size_t next_address;
    struct event *deadline;
    struct bufferevent *inside;
    struct bufferevent *outside; /* while CONNECTING */
    struct relay *relay;         /* while RELAYING */
};

/* Gives up what is on its way to the target. */
static void drop_outside(struct connection *connection)
{
    if (connection->lookup != NULL)
        lookup_cancel(connection->lookup);
    connection->lookup = NULL;
    if (connection->outside != NULL)
        bufferevent_free(connection->outside);
    connection->outside = NULL;
}

static void connection_free(struct connection *connection)
{
    connection->sandbox->gate_connections--;
    connection->gate->connections--;
    drop_outside(connection);
    if (connection->deadline != NULL)
        event_free(connection->deadline);
    if (connection->inside != NULL)
        bufferevent_free(connection->inside);
    relay_free(connection->relay);
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

static void set_deadline(struct connection *connection, int seconds)
{
    const struct timeval wait = {.tv_sec = seconds};

    evtimer_add(connection->deadline, &wait);
}

/* --- refusals ------------------------------------------------------------------------------------- */

/* Why a connection is refused, in both languages. */
enum refusal {
    REFUSE_BAD_REQUEST,
    REFUSE_TOO_LARGE,
    REFUSE_FORBIDDEN,
    REFUSE_NO_NAME,
    REFUSE_UNREACHABLE,
    REFUSE_TIMEOUT,
    REFUSE_NO_ROOM,
};

static const struct {
    const char *status;
    unsigned char socks; /* RFC 1928 section 6 */
} refusals[] = {
    [REFUSE_BAD_REQUEST] = {"400 Bad Request", 7},     [REFUSE_TOO_LARGE] = {"431 Request Header Fields Too Large", 1},
    [REFUSE_FORBIDDEN] = {"403 Forbidden", 2},         [REFUSE_NO_NAME] = {"502 Bad Gateway", 4},
    [REFUSE_UNREACHABLE] = {"502 Bad Gateway", 5},     [REFUSE_TIMEOUT] = {"504 Gateway Timeout", 6},
    [REFUSE_NO_ROOM] = {"503 Service Unavailable", 1},
};

#define HTTP_REFUSAL "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s\n"

static void discard(struct bufferevent *inside, void *arg)
{
    struct evbuffer *input = bufferevent_get_input(inside);

    (void)arg;
    evbuffer_drain(input, evbuffer_get_length(input));
}

/* The refusal was written: the caller reads it, and closes. */
static void on_refusal_written(struct bufferevent *inside, void *arg)
{
    (void)arg;
    shutdown(bufferevent_getfd(inside), SHUT_WR);
}

static void on_refused_event(struct bufferevent *inside, short what, void *arg)
{
    (void)inside;
    (void)what;
    connection_close(arg);
}

/* The answer of SOCKS; we do not tell the address of our end. */
static void answer_socks(struct connection *connection, unsigned char code)
{
    const unsigned char answer[] = {5, code, 0, 1, 0, 0, 0, 0, 0, 0};

    bufferevent_write(connection->inside, answer, sizeof answer);
}

/* Tells the caller, if it is one that waits for an answer, and closes once it has taken it. */
static void refuse(struct connection *connection, enum refusal refusal, const char *text)
{
    char target[ENDPOINT_TEXT_MAX_BYTES];

    /* Of what was asked for this is all that a log may have: a host's bytes were checked, the rest may hold secrets. */
    endpoint_text(&connection->request.target, target);
    log_info_limited("sandbox %s: gate refuses %s: %s", connection->sandbox->id,
                     connection->request.target.host[0] != '\0' ? target : "a request", text);
    drop_outside(connection);
    if (connection->request.form == PROXY_NONE) {
        connection_close(connection);
        return;
    }
    connection->state = GATE_REFUSING;
    if (connection->request.form == PROXY_SOCKS)
        answer_socks(connection, refusals[refusal].socks);
    else
        evbuffer_add_printf(bufferevent_get_output(connection->inside), HTTP_REFUSAL, refusals[refusal].status,
                            strlen(text) + 1, text);
    bufferevent_setcb(connection->inside, discard, on_refusal_written, on_refused_event, connection);
    bufferevent_enable(connection->inside, EV_READ | EV_WRITE);
    discard(connection->inside, connection);
    set_deadline(connection, REFUSE_TIMEOUT_S);
}

/* Refuses what the settings do not allow, and says which one would. */
static void refuse_forbidden(struct connection *connection, const char *why)
{
    char target[ENDPOINT_TEXT_MAX_BYTES], text[TEXT_MAX_BYTES];

    endpoint_text(&connection->request.target, target);
    snprintf(text, sizeof text, "%s is not allowed: %s. The setting network_allow = %s would allow it.", target, why,
             target);
    refuse(connection, REFUSE_FORBIDDEN, text);
}

/* Refuses what the one who made the sandbox does not want. */
static void refuse_denied(struct connection *connection)
{
    char target[ENDPOINT_TEXT_MAX_BYTES], text[TEXT_MAX_BYTES];

    snprintf(text, sizeof text,
             "%s is not allowed: denyOut of this sandbox's network has it. An entry in its allowOut would allow it.",
             endpoint_text(&connection->request.target, target));
    refuse(connection, REFUSE_FORBIDDEN, text);
}

/* --- relaying ------------------------------------------------------------------------------------- */

static void on_relay_ended(void *arg)
{
    connection_close(arg);
}

/* The connection stands: what the caller waits for goes to it, what the origin waits for to that. */
static void start_relaying(struct connection *connection)
{
    const struct proxy_request *request = &connection->request;
    struct bufferevent *inside = connection->inside, *outside = connection->outside;
    struct evbuffer *input = bufferevent_get_input(inside);

    if (request->form == PROXY_CONNECT)
        evbuffer_add_printf(bufferevent_get_output(inside), "HTTP/1.1 200 Connection established\r\n\r\n");
    else if (request->form == PROXY_SOCKS)
        answer_socks(connection, 0);
    else if (request->form == PROXY_FORWARD &&
             !proxy_request_rewrite(request, (const char *)evbuffer_pullup(input, (ssize_t)request->head_bytes),
                                    bufferevent_get_output(outside))) {
        refuse(connection, REFUSE_NO_ROOM, "out of memory");
        return;
    }
    evbuffer_drain(input, request->head_bytes);
    connection->state = GATE_RELAYING;
    evtimer_del(connection->deadline);
    connection->inside = NULL;
    connection->outside = NULL;
    connection->relay = relay_new(inside, outside, &connection->sandbox->gate_pace,
                                  request->form == PROXY_FORWARD ? &request->body : NULL, on_relay_ended, connection);
    if (connection->relay == NULL)
        connection_close(connection);
}

/* --- connecting ----------------------------------------------------------------------------------- */

static void connect_next(struct connection *connection);

/* Whether the address may be connected to; false after *forbidden was noted. */
static bool may_reach(struct connection *connection, const union address *address)
{
    const struct network *network = connection->gate->network;
    enum reach_result result;
    const char *what = NULL;

    if (connection->is_allowed || endpoint_find_address(&network->allowed, address) != NULL)
        return true;
    if (!egress_allows(connection->sandbox->egress, connection->request.target.host, address)) {
        connection->is_denied = true;
        return false;
    }
    result = reach_check(&connection->gate->reach, address, &what);
    if (result == REACH_FORBIDDEN)
        connection->forbidden = what;
    return result == REACH_OPEN;
}

/* The address at the other end, which is judged again: the machine may have taken it for itself meanwhile. */
static bool is_peer_allowed(struct connection *connection)
{
    union address peer;
    socklen_t length = sizeof peer;

    return getpeername(bufferevent_getfd(connection->outside), &peer.any, &length) == 0 && may_reach(connection, &peer);
}

/* Small writes are not held back, and a peer that vanished is noticed. */
static void set_socket_options(int inside_fd, int outside_fd)
{
    const int on = 1;

    setsockopt(inside_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(outside_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(outside_fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static void on_connect_event(struct bufferevent *outside, short what, void *arg)
{
    struct connection *connection = arg;

    if ((what & BEV_EVENT_CONNECTED) == 0 || !is_peer_allowed(connection)) {
        connect_next(connection);
        return;
    }
    bufferevent_set_timeouts(outside, NULL, NULL);
    set_socket_options(bufferevent_getfd(connection->inside), bufferevent_getfd(outside));
    start_relaying(connection);
}

/* A socket on its way to the address; -1 when that failed at once. */
static int begin_connect(const union address *address)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, &address->any, address_length(address)) < 0 && errno != EINPROGRESS) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Begins to connect to an address; false when that failed at once. */
static bool connect_to(struct connection *connection, const union address *address)
{
    const struct timeval limit = {.tv_sec = ADDRESS_TIMEOUT_S};
    struct bufferevent *outside;
    int fd = begin_connect(address);

    if (fd < 0)
        return false;
    outside = bufferevent_socket_new(connection->gate->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (outside == NULL) {
        close(fd);
        return false;
    }
    connection->outside = outside;
    bufferevent_setcb(outside, NULL, NULL, on_connect_event, connection);
    bufferevent_set_timeouts(outside, NULL, &limit);
    /* Without an address: the socket it has is connecting. */
    return bufferevent_socket_connect(outside, NULL, 0) == 0;
}

/* Tries the next address that is allowed; refuses when there is none left. */
static void connect_next(struct connection *connection)
{
    char why[WHY_MAX_BYTES];

    drop_outside(connection);
    while (connection->next_address < connection->addresses.count) {
        const union address *address = &connection->addresses.entries[connection->next_address++];

        if (may_reach(connection, address) && connect_to(connection, address))
            return;
        drop_outside(connection);
    }
    if (connection->forbidden != NULL) {
        snprintf(why, sizeof why, "it leads to %s", connection->forbidden);
        refuse_forbidden(connection, why);
    } else if (connection->is_denied) {
        refuse_denied(connection);
    } else {
        refuse(connection, REFUSE_UNREACHABLE, "the endpoint cannot be reached");
    }
}

static void on_resolved(const struct address_list *addresses, void *arg)
{
    struct connection *connection = arg;

    connection->lookup = NULL;
    if (addresses->count == 0) {
        refuse(connection, REFUSE_NO_NAME, "the name cannot be resolved");
        return;
    }
    connection->addresses = *addresses;
    connection->state = GATE_CONNECTING;
    connect_next(connection);
}

/* Looks the target up and connects, if it may be asked for at all. */
static void start_connecting(struct connection *connection)
{
    const struct endpoint *target = &connection->request.target;

    connection->is_allowed = endpoint_find(&connection->gate->network->allowed, target) != NULL;
    bufferevent_disable(connection->inside, EV_READ);
    if (!connection->is_allowed && connection->gate->network->mode == NETWORK_NONE) {
        refuse_forbidden(connection, "sandboxes have no internet (the setting network is none)");
        return;
    }
    if (!connection->is_allowed && !connection->sandbox->has_internet) {
        refuse_forbidden(connection, "this sandbox was created without internet (allow_internet_access is false)");
        return;
    }
    if (!connection->is_allowed && !egress_may_allow(connection->sandbox->egress, target->host)) {
        refuse_denied(connection);
        return;
    }
    connection->state = GATE_RESOLVING;
    set_deadline(connection, CONNECT_TIMEOUT_S);
    connection->lookup = resolver_start(connection->gate->resolver, target, on_resolved, connection);
    if (connection->lookup == NULL)
        refuse(connection, REFUSE_NO_ROOM, "out of memory");
}

/* --- the request ---------------------------------------------------------------------------------- */

static void answer_greeting(struct connection *connection, const char *answer)
{
    evbuffer_drain(bufferevent_get_input(connection->inside), connection->request.head_bytes);
    bufferevent_write(connection->inside, answer, strlen(PROXY_SOCKS_GREETING_BAD));
    connection->is_greeted = true;
}

/* More of the request came. */
static void on_head_read(struct bufferevent *inside, void *arg)
{
    static const char usage[] =
        "this is a proxy: it takes CONNECT host:port, requests for http://host:port/ and SOCKS 5 "
        "without authentication";
    struct connection *connection = arg;
    struct evbuffer *input = bufferevent_get_input(inside);
    size_t length = evbuffer_get_length(input);

    switch (proxy_request_parse((const char *)evbuffer_pullup(input, -1), length, connection->is_greeted,
                                &connection->request)) {
    case PROXY_HEAD_INCOMPLETE:
        if (length >= PROXY_HEAD_MAX_BYTES)
            refuse(connection, REFUSE_TOO_LARGE, "the head of the request is too large");
        return;
    case PROXY_HEAD_BAD:
        refuse(connection, REFUSE_BAD_REQUEST, usage);
        return;
    case PROXY_HEAD_GREETING:
        answer_greeting(connection, PROXY_SOCKS_GREETING);
        on_head_read(inside, connection);
        return;
    case PROXY_HEAD_GREETING_BAD:
        connection_close(connection);
        return;
    case PROXY_HEAD_OK:
        start_connecting(connection);
        return;
    }
}

/* The caller closed before it was connected. */
static void on_inside_event(struct bufferevent *inside, short what, void *arg)
{
    (void)inside;
    (void)what;
    connection_close(arg);
}

/* A state took too long. */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    if (connection->state == GATE_RESOLVING || connection->state == GATE_CONNECTING)
        refuse(connection, REFUSE_TIMEOUT, "the endpoint did not answer in time");
    else
        connection_close(connection);
}

/* --- accepting ------------------------------------------------------------------------------------ */

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
static struct connection *connection_new(struct gate *gate, struct sandbox *sandbox, int fd)
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
    gate->connections++;
    connection->deadline = evtimer_new(gate->base, on_deadline, connection);
    if (connection->deadline == NULL) {
        connection_close(connection);
        return NULL;
    }
    bufferevent_setcb(connection->inside, on_head_read, NULL, on_inside_event, connection);
    return connection;
}

/* Says that there is no room, as far as that is possible without waiting. */
static void refuse_at_once(const struct sandbox *sandbox, unsigned listener, int fd)
{
    static const char text[] = "too many connections at once";
    char answer[sizeof HTTP_REFUSAL + 128];
    int length = snprintf(answer, sizeof answer, HTTP_REFUSAL, refusals[REFUSE_NO_ROOM].status, sizeof text, text);

    log_info_limited("sandbox %s: gate refuses a connection: %s", sandbox->id, text);
    if (listener == SANDBOX_PROXY_LISTENER && length > 0)
        (void)!send(fd, answer, (size_t)length, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

void gate_accepted(struct sandbox *sandbox, unsigned listener, int fd, void *arg)
{
    struct gate *gate = arg;
    struct connection *connection;

    if (sandbox->gate_connections >= GATE_SANDBOX_CONNECTIONS_MAX || gate->connections >= gate->connections_max) {
        refuse_at_once(sandbox, listener, fd);
        return;
    }
    connection = connection_new(gate, sandbox, fd);
    if (connection == NULL)
        return;
    if (listener != SANDBOX_PROXY_LISTENER) {
        connection->request.target = gate->network->allowed.entries[listener - 1];
        start_connecting(connection);
        return;
    }
    connection->request.form = PROXY_CONNECT;
    bufferevent_setwatermark(connection->inside, EV_READ, 0, PROXY_HEAD_MAX_BYTES);
    set_deadline(connection, HEAD_TIMEOUT_S);
    bufferevent_enable(connection->inside, EV_READ | EV_WRITE);
}

bool gate_open(struct gate *gate, struct event_base *base, const struct network *network)
{
    *gate = (struct gate){.base = base, .network = network, .connections_max = GATE_SANDBOX_CONNECTIONS_MAX};
    if (!reach_open(&gate->reach)) {
        log_error("netlink socket: %s", strerror(errno));
        return false;
    }
    gate->resolver = resolver_new(base);
    if (gate->resolver == NULL)
        log_error("resolver: out of memory");
    return gate->resolver != NULL;
}

void gate_set_descriptors(struct gate *gate, unsigned long long descriptors)
{
    gate->connections_max = descriptors / 4 < UINT32_MAX ? (unsigned)(descriptors / 4) : UINT32_MAX;
}

void gate_close(struct gate *gate)
{
    resolver_free(gate->resolver);
    gate->resolver = NULL;
    if (gate->base != NULL)
        reach_close(&gate->reach);
}
