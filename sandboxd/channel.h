/*
 * channel: sandboxd's end of a control socket (init/control.h) on the event loop.
 *
 * Never blocks: what the socket does not take now waits in a bounded queue. A channel that breaks, by its queue
 * overflowing, by malformed bytes or by the other end's death, says so once and is silent from then on.
 */
#ifndef SANDBOXD_CHANNEL_H
#define SANDBOXD_CHANNEL_H

#include "sandboxd/init/control.h"

#include <event2/event.h>
#include <stdbool.h>

/* Orders that wait for a sandbox that does not read. */
#define CHANNEL_QUEUE_MAX 256

struct channel;

struct channel_callbacks {
    /* A notice came. Its descriptors belong to the channel: a callback that keeps one sets its place to -1. */
    void (*notice)(void *arg, struct control_message *notice);
    /* The channel broke; reason is a static text. May call channel_close(), not channel_free(). */
    void (*broken)(void *arg, const char *reason);
};

/* Takes the descriptor, in every case. NULL when memory is out. */
struct channel *channel_new(struct event_base *base, int fd, const struct channel_callbacks *callbacks, void *arg)
    __attribute__((warn_unused_result));

/* Closes the socket, which ends the sandbox's init. No callback after it. */
void channel_close(struct channel *channel);

/* Not from inside a callback of this channel. */
void channel_free(struct channel *channel);

/* Sends an order, now or when there is room. Takes the descriptors of the order, in every case. */
void channel_send(struct channel *channel, struct control_message *order);

#endif
