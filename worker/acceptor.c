#include "worker/acceptor.h"

#include "common/log.h"
#include "common/log_limit.h"
#include "worker/timer.h"

#include <errno.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STAND_ASIDE_MS     2u /* for each worker that should come first */
#define STAND_ASIDE_MAX_MS 8u
#define WAITING_PER_AHEAD  32u
/* Out of descriptors, an evhttp listener would spin: nothing is accepted for this long (libs.md). */
#define ACCEPT_PAUSE_MS 1000
/* More than any queue of a listening socket holds here: who keeps filling it must not keep us. */
#define LAST_TURN_MAX 65536

/*
 * One listening socket. evhttp takes connections only from its own evconnlistener, so that is enabled for one turn of
 * the loop when the socket is ready and it is our turn, and disabled by acceptor_took() after one connection.
 */
struct gate {
    struct acceptor *acceptor;
    struct evconnlistener *listener;
    struct event *ready; /* the socket has a connection waiting */
    struct event *turn;  /* ends the standing aside, the one turn, or the pause */
    bool has_proxy_header;
    bool stood_aside;
    bool open; /* the listener is enabled, for this turn */
    bool closed;
};

struct acceptor {
    struct scoreboard *scoreboard;
    int slot;
    bool stopping;
    size_t taken_last; /* connections, since stopping */
    struct gate *gates;
    size_t count;
};

/* evhttp keeps the listener's context for itself: this is how its error callback finds the worker's one acceptor. */
static struct acceptor *this_acceptor;

/* How many connections wait on a listening socket; 0 for a unix socket, of which the kernel does not say it. */
static unsigned waiting(int fd)
{
    struct tcp_info info = {.tcpi_unacked = 0};
    socklen_t size = sizeof info;

    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0 ? info.tcpi_unacked : 0;
}

/* How many serving workers hold fewer connections than this one, by more than it may be ahead. */
static unsigned workers_ahead(struct acceptor *acceptor, unsigned may_be_ahead)
{
    unsigned own = atomic_load(&acceptor->scoreboard->slots[acceptor->slot].connections);
    unsigned ahead = 0;

    for (unsigned i = 0; i < atomic_load(&acceptor->scoreboard->slots_end); i++) {
        struct worker_slot *slot = &acceptor->scoreboard->slots[i];

        if (atomic_load_explicit(&slot->state, memory_order_relaxed) == WORKER_SERVING)
            ahead += atomic_load_explicit(&slot->connections, memory_order_relaxed) + may_be_ahead < own;
    }
    return ahead;
}

static void close_gate(struct gate *gate)
{
    gate->open = false;
    evconnlistener_disable(gate->listener);
}

/* Our turn: the listener takes what waits, in the next turn of the loop, until acceptor_took() stops it. */
static void open_gate(struct gate *gate)
{
    gate->stood_aside = false;
    gate->open = true;
    evconnlistener_enable(gate->listener);
    timer_start(gate->turn, 0);
}

static void close_for_good(struct gate *gate)
{
    close_gate(gate);
    close(evconnlistener_get_fd(gate->listener));
    gate->closed = true;
}

static void on_ready(evutil_socket_t fd, short what, void *context)
{
    struct gate *gate = context;
    struct acceptor *acceptor = gate->acceptor;
    unsigned aside_ms = workers_ahead(acceptor, waiting(fd) / WAITING_PER_AHEAD) * STAND_ASIDE_MS;

    (void)what;
    event_del(gate->ready);
    if (aside_ms == 0) {
        open_gate(gate);
        return;
    }
    gate->stood_aside = true;
    timer_start(gate->turn, aside_ms < STAND_ASIDE_MAX_MS ? aside_ms : STAND_ASIDE_MAX_MS);
}

static void on_turn(evutil_socket_t fd, short what, void *context)
{
    struct gate *gate = context;

    (void)fd;
    (void)what;
    if (gate->acceptor->stopping) {
        close_for_good(gate);
        return;
    }
    if (gate->stood_aside) {
        open_gate(gate);
        return;
    }
    close_gate(gate);
    event_add(gate->ready, NULL);
}

static void on_error(struct evconnlistener *listener, void *context)
{
    struct acceptor *acceptor = this_acceptor;
    int error = errno;

    (void)context;
    log_warn_limited("cannot accept a connection: %s; trying again in %d ms", strerror(error), ACCEPT_PAUSE_MS);
    for (size_t i = 0; i < acceptor->count; i++) {
        struct gate *gate = &acceptor->gates[i];

        if (gate->listener != listener)
            continue;
        close_gate(gate);
        event_del(gate->ready);
        timer_start(gate->turn, acceptor->stopping ? 0 : ACCEPT_PAUSE_MS);
    }
}

static bool gate_init(struct gate *gate, struct acceptor *acceptor, struct event_base *base, struct evhttp *http,
                      int fd)
{
    gate->acceptor = acceptor;
    gate->listener = evconnlistener_new(base, NULL, NULL, LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED, 0, fd);
    gate->ready = event_new(base, fd, EV_READ | EV_PERSIST, on_ready, gate);
    gate->turn = evtimer_new(base, on_turn, gate);
    if (gate->listener == NULL || gate->ready == NULL || gate->turn == NULL)
        return false;
    evconnlistener_set_error_cb(gate->listener, on_error);
    if (evhttp_bind_listener(http, gate->listener) == NULL)
        return false;
    evconnlistener_disable(gate->listener);
    return event_add(gate->ready, NULL) == 0;
}

struct acceptor *acceptor_new(struct event_base *base, struct evhttp *http, struct scoreboard *scoreboard, int slot,
                              const int *listen_fds, size_t count, uint64_t proxied)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);

    if (acceptor == NULL || (acceptor->gates = calloc(count, sizeof *acceptor->gates)) == NULL) {
        free(acceptor);
        return NULL;
    }
    this_acceptor = acceptor;
    acceptor->scoreboard = scoreboard;
    acceptor->slot = slot;
    for (size_t i = 0; i < count; i++) {
        acceptor->count++;
        acceptor->gates[i].has_proxy_header = (proxied >> i & 1) != 0;
        if (!gate_init(&acceptor->gates[i], acceptor, base, http, listen_fds[i])) {
            acceptor_free(acceptor);
            return NULL;
        }
    }
    return acceptor;
}

/* The listeners are evhttp's to free. */
void acceptor_free(struct acceptor *acceptor)
{
    if (acceptor == NULL)
        return;
    for (size_t i = 0; i < acceptor->count; i++) {
        if (acceptor->gates[i].ready != NULL)
            event_free(acceptor->gates[i].ready);
        if (acceptor->gates[i].turn != NULL)
            event_free(acceptor->gates[i].turn);
    }
    free(acceptor->gates);
    free(acceptor);
}

void acceptor_stop(struct acceptor *acceptor, bool take_waiting)
{
    if (acceptor->stopping)
        return;
    acceptor->stopping = true;
    for (size_t i = 0; i < acceptor->count; i++) {
        struct gate *gate = &acceptor->gates[i];

        event_del(gate->ready);
        event_del(gate->turn);
        if (take_waiting)
            open_gate(gate);
        else
            close_for_good(gate);
    }
}

bool acceptor_is_closed(const struct acceptor *acceptor)
{
    for (size_t i = 0; i < acceptor->count; i++) {
        if (!acceptor->gates[i].closed)
            return false;
    }
    return true;
}

bool acceptor_expects_proxy_header(const struct acceptor *acceptor, int listen_fd)
{
    for (size_t i = 0; i < acceptor->count; i++) {
        if (evconnlistener_get_fd(acceptor->gates[i].listener) == listen_fd)
            return acceptor->gates[i].has_proxy_header;
    }
    log_panic("acceptor: a connection of descriptor %d, which is none of ours", listen_fd);
}

void acceptor_took(struct acceptor *acceptor)
{
    atomic_fetch_add(&acceptor->scoreboard->slots[acceptor->slot].connections, 1);
    if (acceptor->stopping && ++acceptor->taken_last < LAST_TURN_MAX)
        return;
    for (size_t i = 0; i < acceptor->count; i++) {
        if (acceptor->gates[i].open)
            close_gate(&acceptor->gates[i]);
    }
}

void acceptor_lost(struct acceptor *acceptor)
{
    atomic_fetch_sub(&acceptor->scoreboard->slots[acceptor->slot].connections, 1);
}
