/* What the files of the sandboxes share: the table (sandbox_table.c), a life (sandbox.c), its orders
 * (sandbox_orders.c). */
#ifndef SANDBOXD_SANDBOX_INTERNAL_H
#define SANDBOXD_SANDBOX_INTERNAL_H

#include "sandboxd/channel.h"
#include "sandboxd/sandbox.h"

#define SANDBOX_BUCKETS 256

/* An order that waits for init's answer. */
struct pending {
    LIST_ENTRY(pending) next;
    uint32_t tag;
    enum control_kind kind; /* of the answer */
    sandbox_answer answer;
    void *arg;
};

/* Who waits for the end of a sandbox. */
struct end_waiter {
    LIST_ENTRY(end_waiter) next;
    void (*ended)(void *arg);
    void *arg;
};

LIST_HEAD(pending_list, pending);
LIST_HEAD(sandbox_watch_list, sandbox_watch);
LIST_HEAD(end_waiter_list, end_waiter);

/* What only this file touches. */
struct sandbox_private {
    pid_t bwrap_pid;
    int init_pidfd; /* -1 until init answered */
    struct channel *channel;
    struct event *timer;  /* start limit, then end of life */
    int64_t expires_ms;   /* monotonic_ms() from which on its life is over; what end_at says, rounded up */
    struct event *errors; /* bwrap's stderr until init answered */
    int errors_fd;
    size_t errors_bytes;
    char errors_text[JAIL_ERROR_MAX_BYTES];
    void (*ready)(struct sandbox *sandbox, const char *reason, void *arg);
    void *ready_arg;
    uint32_t last_tag;
    unsigned pending_count;
    struct pending_list pending;
    struct sandbox_watch_list watches;
    struct end_waiter_list waiters;
};

LIST_HEAD(sandbox_list, sandbox);

struct sandbox_table {
    struct event_base *base;
    struct jail *jail;
    struct event *balance;
    const struct network *network;
    const struct sandbox_hooks *hooks;
    struct sandbox_list running[SANDBOX_BUCKETS];
    struct sandbox_list unlisted; /* STARTING and ENDING */
    unsigned count;               /* of all but ENDING */
    void (*all_ended)(void *arg);
    void *all_ended_arg;
};

/* The list of the running sandboxes with ids like this one. */
struct sandbox_list *sandbox_bucket(struct sandbox_table *table, const char *id);

/* Sets when the life of a sandbox ends. */
void sandbox_set_lifetime(struct sandbox *sandbox, int timeout_s);

/* Tells those who waited for the start, which then failed, and for the end. */
void sandbox_tell_ended(struct sandbox *sandbox);

/* Orders what makes the way out reachable inside: the proxy, and a listener for each allowed loopback endpoint. */
void sandbox_order_listeners(struct sandbox *sandbox);

/* Frees a sandbox of which nothing runs any more. */
void sandbox_free(struct sandbox *sandbox);

/* Orders that every process be stopped, or continued; false when too many orders wait. */
bool sandbox_order_freeze(struct sandbox *sandbox, bool stop, sandbox_answer answer, void *arg)
    __attribute__((warn_unused_result));

/* Gives the answer to the order that waits for it; an answer nobody waits for is dropped. */
void sandbox_orders_answer(struct sandbox *sandbox, struct control_message *answer);

/* Forgets the orders that wait: their owners have watches, and were told. */
void sandbox_orders_forget(struct sandbox_private *own);

#endif
