#include "sandboxd/relay.h"

#include "common/clock.h"

#include <event2/event.h>
#include <stdlib.h>
#include <sys/socket.h>

/* One of the two sockets. */
struct side {
    struct relay *relay;
    struct side *other;
    struct bufferevent *socket;
    bool is_at_end;  /* nothing more will be read from it */
    bool is_told;    /* it was told that nothing more comes */
    bool is_blocked; /* not read: the other side has not taken what there is */
    bool is_paced;   /* not read: the sandbox is too fast */
};

struct relay {
    struct side inside, outside;
    bool is_over;
    bool has_body;
    struct proxy_body body; /* of what the inside sends */
    int64_t last_bytes_ms;
    struct pace *pace;
    struct event *idle;
    struct event *resume; /* pending: a side is paced */
    struct event *over;   /* active: ended() is due */
    void (*ended)(void *arg);
    void *arg;
};

/* The end is told from the loop: whoever hears of it frees the relay. */
static void end(struct relay *relay)
{
    relay->is_over = true;
    bufferevent_disable(relay->inside.socket, EV_READ | EV_WRITE);
    bufferevent_disable(relay->outside.socket, EV_READ | EV_WRITE);
    event_active(relay->over, EV_TIMEOUT, 0);
}

static void on_over(evutil_socket_t fd, short what, void *arg)
{
    struct relay *relay = arg;

    (void)fd;
    (void)what;
    relay->ended(relay->arg);
}

/* Passes on what belongs to the one request of the inside. What follows it gets no answer: the connection closes. */
static void move_body(struct relay *relay, struct evbuffer *in, struct evbuffer *out)
{
    while (!relay->is_over && relay->body.state != PROXY_BODY_ENDED && evbuffer_get_length(in) > 0) {
        size_t length = evbuffer_get_contiguous_space(in);
        size_t taken = proxy_body_take(&relay->body, (const char *)evbuffer_pullup(in, (ssize_t)length), length);

        evbuffer_remove_buffer(in, out, taken);
        if (relay->body.state == PROXY_BODY_BAD)
            end(relay);
    }
    evbuffer_drain(in, evbuffer_get_length(in));
}

/* Reads from a side unless something speaks against it. */
static void set_reading(struct side *side)
{
    if (side->relay->is_over || side->is_at_end || side->is_blocked || side->is_paced)
        bufferevent_disable(side->socket, EV_READ);
    else
        bufferevent_enable(side->socket, EV_READ);
}

static void wait_for(struct event *timer, int64_t wait_ms)
{
    const struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = wait_ms % 1000 * 1000};

    evtimer_add(timer, &wait);
}

/* Counts what a side sent; a sandbox that is too fast waits. */
static void keep_pace(struct side *side, size_t bytes)
{
    struct relay *relay = side->relay;
    int64_t wait_ms;

    relay->last_bytes_ms = monotonic_ms();
    wait_ms = pace_use(relay->pace, bytes, relay->last_bytes_ms);
    if (wait_ms == 0)
        return;
    side->is_paced = true;
    wait_for(relay->resume, wait_ms);
}

static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct relay *relay = arg;

    (void)fd;
    (void)what;
    relay->inside.is_paced = false;
    relay->outside.is_paced = false;
    set_reading(&relay->inside);
    set_reading(&relay->outside);
}

/* What one side sent goes to the other, whose full buffer stops the reading here. */
static void pass_on(struct side *side)
{
    struct relay *relay = side->relay;
    struct evbuffer *in = bufferevent_get_input(side->socket), *out = bufferevent_get_output(side->other->socket);

    keep_pace(side, evbuffer_get_length(in));
    if (side == &relay->inside && relay->has_body)
        move_body(relay, in, out);
    else
        evbuffer_add_buffer(out, in);
    side->is_blocked = evbuffer_get_length(out) > RELAY_HIGH_WATER_BYTES;
    set_reading(side);
}

static void on_read(struct bufferevent *socket, void *arg)
{
    (void)socket;
    pass_on(arg);
}

/*
 * One direction is at its end and written out: tells the receiver, perhaps again, for an empty buffer may be written
 * out twice. The second direction's end is the end of all, as is that of the answer to the only request.
 */
static void finish_direction(struct side *receiver)
{
    struct relay *relay = receiver->relay;

    shutdown(bufferevent_getfd(receiver->socket), SHUT_WR);
    receiver->is_told = true;
    if (receiver->other->is_told || (relay->has_body && receiver == &relay->inside))
        end(relay);
}

/* All was written to one side: the other may be read again, or, at its end, the end is passed on. */
static void on_written(struct bufferevent *socket, void *arg)
{
    struct side *side = arg;

    (void)socket;
    side->relay->last_bytes_ms = monotonic_ms();
    side->other->is_blocked = false;
    set_reading(side->other);
    if (side->other->is_at_end)
        finish_direction(side);
}

/* A side ended or broke. */
static void on_event(struct bufferevent *socket, short what, void *arg)
{
    struct side *side = arg;

    (void)socket;
    if ((what & BEV_EVENT_EOF) == 0 || (what & BEV_EVENT_WRITING) != 0) {
        end(side->relay);
        return;
    }
    side->is_at_end = true;
    pass_on(side);
    if (evbuffer_get_length(bufferevent_get_output(side->other->socket)) == 0)
        finish_direction(side->other);
}

/* The timer of the silence fired: it waits for what is left of it. */
static void on_idle(evutil_socket_t fd, short what, void *arg)
{
    struct relay *relay = arg;
    int64_t left_ms = relay->last_bytes_ms + RELAY_IDLE_S * INT64_C(1000) - monotonic_ms();

    (void)fd;
    (void)what;
    if (left_ms > 0)
        wait_for(relay->idle, left_ms);
    else
        end(relay);
}

static void start_side(struct side *side)
{
    bufferevent_setwatermark(side->socket, EV_READ, 0, 0);
    bufferevent_setcb(side->socket, on_read, on_written, on_event, side);
    bufferevent_enable(side->socket, EV_READ | EV_WRITE);
}

struct relay *relay_new(struct bufferevent *inside, struct bufferevent *outside, struct pace *pace,
                        const struct proxy_body *body, void (*ended)(void *arg), void *arg)
{
    struct event_base *base = bufferevent_get_base(inside);
    struct relay *relay = calloc(1, sizeof *relay);

    if (relay == NULL) {
        bufferevent_free(inside);
        bufferevent_free(outside);
        return NULL;
    }
    relay->inside = (struct side){.relay = relay, .other = &relay->outside, .socket = inside};
    relay->outside = (struct side){.relay = relay, .other = &relay->inside, .socket = outside};
    relay->pace = pace;
    relay->has_body = body != NULL;
    if (body != NULL)
        relay->body = *body;
    relay->ended = ended;
    relay->arg = arg;
    relay->idle = evtimer_new(base, on_idle, relay);
    relay->resume = evtimer_new(base, on_resume, relay);
    relay->over = evtimer_new(base, on_over, relay);
    if (relay->idle == NULL || relay->resume == NULL || relay->over == NULL) {
        relay_free(relay);
        return NULL;
    }
    start_side(&relay->inside);
    start_side(&relay->outside);
    pass_on(&relay->inside);
    wait_for(relay->idle, RELAY_IDLE_S * INT64_C(1000));
    return relay;
}

void relay_free(struct relay *relay)
{
    struct event *timers[3];

    if (relay == NULL)
        return;
    timers[0] = relay->idle;
    timers[1] = relay->resume;
    timers[2] = relay->over;
    for (size_t i = 0; i < sizeof timers / sizeof *timers; i++) {
        if (timers[i] != NULL)
            event_free(timers[i]);
    }
    bufferevent_free(relay->inside.socket);
    bufferevent_free(relay->outside.socket);
    free(relay);
}
