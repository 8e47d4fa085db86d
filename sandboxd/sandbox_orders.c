#include "sandboxd/sandbox_internal.h"

#include <stdlib.h>
#include <string.h>

#define PENDING_ORDERS_MAX 1024

void sandbox_orders_forget(struct sandbox_private *own)
{
    struct pending *pending;

    while ((pending = LIST_FIRST(&own->pending)) != NULL) {
        LIST_REMOVE(pending, next);
        free(pending);
    }
    own->pending_count = 0;
}

void sandbox_orders_answer(struct sandbox *sandbox, struct control_message *answer)
{
    struct pending *pending;

    LIST_FOREACH(pending, &sandbox->private->pending, next)
    {
        if (pending->tag == answer->header.tag && pending->kind == answer->header.kind)
            break;
    }
    if (pending == NULL)
        return;
    LIST_REMOVE(pending, next);
    sandbox->private->pending_count--;
    pending->answer(answer, pending->arg);
    free(pending);
}

/* Registers who gets the answer to the next order; its tag, or 0 when too many wait. */
static uint32_t expect_answer(struct sandbox *sandbox, enum control_kind kind, sandbox_answer answer, void *arg)
{
    struct sandbox_private *own = sandbox->private;
    struct pending *pending;

    if (sandbox->state != SANDBOX_RUNNING || own->pending_count == PENDING_ORDERS_MAX)
        return 0;
    pending = malloc(sizeof *pending);
    if (pending == NULL)
        return 0;
    if (++own->last_tag == 0)
        own->last_tag = 1;
    *pending = (struct pending){.tag = own->last_tag, .kind = kind, .answer = answer, .arg = arg};
    LIST_INSERT_HEAD(&own->pending, pending, next);
    own->pending_count++;
    return pending->tag;
}

bool sandbox_order_spawn(struct sandbox *sandbox, int argc, unsigned envc, const int fds[static CONTROL_FDS_MAX],
                         sandbox_answer answer, void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_SPAWN, .value = argc, .flags = envc},
                                    .fd_count = CONTROL_FDS_MAX};

    memcpy(order.fds, fds, sizeof order.fds);
    order.header.tag = expect_answer(sandbox, CONTROL_SPAWNED, answer, arg);
    if (order.header.tag == 0) {
        control_close_fds(&order);
        return false;
    }
    channel_send(sandbox->private->channel, &order);
    return true;
}

bool sandbox_order_spawn_pty(struct sandbox *sandbox, int argc, unsigned envc, int strings_fd,
                             const struct winsize *window, sandbox_answer answer, void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_SPAWN_PTY, .value = argc, .flags = envc},
                                    .fd_count = 1,
                                    .fds = {strings_fd},
                                    .payload_bytes = sizeof *window};

    memcpy(order.payload, window, sizeof *window);
    order.header.tag = expect_answer(sandbox, CONTROL_SPAWNED, answer, arg);
    if (order.header.tag == 0) {
        control_close_fds(&order);
        return false;
    }
    channel_send(sandbox->private->channel, &order);
    return true;
}

bool sandbox_order_open(struct sandbox *sandbox, const char *path, enum control_open_mode mode, sandbox_answer answer,
                        void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_OPEN, .flags = mode}, .payload_bytes = strlen(path)};

    if (order.payload_bytes >= CONTROL_PAYLOAD_MAX_BYTES)
        return false;
    order.header.tag = expect_answer(sandbox, CONTROL_OPENED, answer, arg);
    if (order.header.tag == 0)
        return false;
    memcpy(order.payload, path, order.payload_bytes);
    channel_send(sandbox->private->channel, &order);
    return true;
}

bool sandbox_order_freeze(struct sandbox *sandbox, bool stop, sandbox_answer answer, void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_FREEZE, .flags = stop}};

    order.header.tag = expect_answer(sandbox, CONTROL_FROZEN, answer, arg);
    if (order.header.tag == 0)
        return false;
    channel_send(sandbox->private->channel, &order);
    return true;
}

void sandbox_order_filesystem(struct sandbox *sandbox, int fd)
{
    struct control_message order = {.header = {.kind = CONTROL_FILESYSTEM}, .fd_count = 1, .fds = {fd}};

    channel_send(sandbox->private->channel, &order);
}

void sandbox_order_signal(struct sandbox *sandbox, pid_t pid, int signal_number)
{
    struct control_message order = {.header = {.kind = CONTROL_SIGNAL, .value = pid, .flags = (uint32_t)signal_number}};

    channel_send(sandbox->private->channel, &order);
}
