/*
 * kill_queue: sandboxes still to be deleted, with retry (http-api.md 6.11).
 *
 * A sandbox goes in at the moment its run ends, whatever ended it, and nobody waits for it. 204 and 404 are success.
 * Given up 60 s after the sandbox's own time to live: by then it is gone.
 */
#ifndef WORKER_KILL_QUEUE_H
#define WORKER_KILL_QUEUE_H

#include "common/run_table.h"
#include "worker/e2b.h"

struct kill_queue;
struct trace_span;

/* The scoreboard, which has the leases, stays with the caller. */
struct kill_queue *kill_queue_new(struct http_client *http, struct event_base *base, struct scoreboard *scoreboard)
    __attribute__((warn_unused_result));
/* Forgets what is left. Its leases stay: another worker deletes it, or its time to live does. */
void kill_queue_free(struct kill_queue *queue);

/* A sandbox to be deleted; strings are copied, the span is taken over. */
struct kill_order {
    struct e2b_service *service;
    const char *sandbox_id;
    const char *run_id;
    int64_t expires_ms;          /* end of the sandbox's time to live, CLOCK_MONOTONIC */
    struct run_lease_name lease; /* DELETING until it is gone; id 0: none */
    struct trace_span *cleanup;  /* ends with the deletion; NULL: none */
};

/* The DELETE is on its way when this returns. */
void kill_queue_add(struct kill_queue *queue, const struct kill_order *order);

/* There is nothing to delete under this lease. */
void kill_queue_forget_lease(struct kill_queue *queue, struct run_lease_name lease);

bool kill_queue_has(const struct kill_queue *queue, const char *sandbox_id);
size_t kill_queue_length(const struct kill_queue *queue);
/* Those whose deletion failed at least once. */
size_t kill_queue_failed(const struct kill_queue *queue);
/* Called each time the last sandbox was deleted; for a worker that waits for it. */
void kill_queue_on_empty(struct kill_queue *queue, void (*on_empty)(void *context), void *context);

#endif
