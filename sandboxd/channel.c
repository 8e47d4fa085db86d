#include "sandboxd/channel.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

/* Notices taken in one turn of the loop, so that a noisy sandbox does not starve the others. */
#define NOTICES_PER_TURN_MAX 32

struct queued {
    STAILQ_ENTRY(queued) next;
    struct control_message order; /* cut after the payload */
};

STAILQ_HEAD(queued_list, queued);

struct channel {
    int fd; /* -1: closed */
    struct event *readable;
    struct event *writable;
    const struct channel_callbacks *callbacks;
    void *arg;
    bool overflowed;
    size_t queue_length;
    struct queued_list queue;
    struct control_message notice;
};

/* Drops the oldest waiting order with its descriptors. */
static void queue_drop(struct channel *channel)
{
    struct queued *queued = STAILQ_FIRST(&channel->queue);

    STAILQ_REMOVE_HEAD(&channel->queue, next);
    channel->queue_length--;
    control_close_fds(&queued->order);
    free(queued);
}

void channel_close(struct channel *channel)
{
    if (channel->fd < 0)
        return;
    event_del(channel->readable);
    event_del(channel->writable);
    close(channel->fd);
    channel->fd = -1;
    while (!STAILQ_EMPTY(&channel->queue))
        queue_drop(channel);
}

/* The one way a channel breaks. */
static void channel_break(struct channel *channel, const char *reason)
{
    if (channel->fd < 0)
        return;
    channel_close(channel);
    channel->callbacks->broken(channel->arg, reason);
}

/* Closes the descriptors that the callback did not keep. */
static void close_unkept(struct control_message *notice)
{
    for (size_t i = 0; i < notice->fd_count; i++) {
        if (notice->fds[i] >= 0)
            close(notice->fds[i]);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct channel *channel = arg;

    (void)fd;
    (void)what;
    for (int i = 0; i < NOTICES_PER_TURN_MAX && channel->fd >= 0; i++) {
        switch (control_receive(channel->fd, &channel->notice)) {
        case CONTROL_OK:
            channel->callbacks->notice(channel->arg, &channel->notice);
            close_unkept(&channel->notice);
            break;
        case CONTROL_AGAIN:
            return;
        case CONTROL_CLOSED:
            channel_break(channel, "init ended");
            return;
        case CONTROL_MALFORMED:
            channel_break(channel, "init sent a malformed notice");
            return;
        case CONTROL_FAILED:
            channel_break(channel, "control socket failed");
            return;
        }
    }
}

/* Sends what waits, as far as the socket takes it. */
static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct channel *channel = arg;

    (void)fd;
    (void)what;
    if (channel->overflowed) {
        channel_break(channel, "sandbox does not take orders");
        return;
    }
    while (!STAILQ_EMPTY(&channel->queue)) {
        enum control_result result = control_send(channel->fd, &STAILQ_FIRST(&channel->queue)->order);

        if (result == CONTROL_AGAIN) {
            event_add(channel->writable, NULL);
            return;
        }
        if (result != CONTROL_OK) {
            channel_break(channel, "order could not be sent");
            return;
        }
        queue_drop(channel);
    }
}

struct channel *channel_new(struct event_base *base, int fd, const struct channel_callbacks *callbacks, void *arg)
{
    struct channel *channel = calloc(1, sizeof *channel);

    if (channel == NULL) {
        close(fd);
        return NULL;
    }
    channel->fd = fd;
    channel->callbacks = callbacks;
    channel->arg = arg;
    STAILQ_INIT(&channel->queue);
    channel->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, channel);
    channel->writable = event_new(base, fd, EV_WRITE, on_writable, channel);
    if (channel->readable == NULL || channel->writable == NULL || event_add(channel->readable, NULL) < 0) {
        channel_free(channel);
        return NULL;
    }
    return channel;
}

void channel_free(struct channel *channel)
{
    if (channel == NULL)
        return;
    if (channel->readable != NULL && channel->writable != NULL)
        channel_close(channel);
    else if (channel->fd >= 0)
        close(channel->fd);
    if (channel->readable != NULL)
        event_free(channel->readable);
    if (channel->writable != NULL)
        event_free(channel->writable);
    free(channel);
}

/* Puts an order at the end of the queue; false when it is full. */
static bool enqueue(struct channel *channel, const struct control_message *order)
{
    size_t bytes = offsetof(struct queued, order.payload) + order->payload_bytes + 1;
    struct queued *queued;

    if (channel->queue_length == CHANNEL_QUEUE_MAX)
        return false;
    queued = malloc(bytes > sizeof *queued ? sizeof *queued : bytes);
    if (queued == NULL)
        return false;
    memcpy(&queued->order, order, offsetof(struct control_message, payload) + order->payload_bytes);
    STAILQ_INSERT_TAIL(&channel->queue, queued, next);
    channel->queue_length++;
    return true;
}

void channel_send(struct channel *channel, struct control_message *order)
{
    if (channel->fd < 0) {
        control_close_fds(order);
        return;
    }
    if (!enqueue(channel, order)) {
        control_close_fds(order);
        channel->overflowed = true;
        event_active(channel->writable, EV_WRITE, 1);
        return;
    }
    /* Sent in order: at once when nothing waits before it. A break is told from the loop, never from in here. */
    if (channel->queue_length > 1 || control_send(channel->fd, &STAILQ_FIRST(&channel->queue)->order) != CONTROL_OK)
        event_add(channel->writable, NULL);
    else
        queue_drop(channel);
}
