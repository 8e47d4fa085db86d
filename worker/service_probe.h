/*
 * service_probe: does the sandbox service answer? GET /health of its control API; the result counts for 10 s, and at
 * most one probe is under way, for all workers of the instance (http-api.md section 11).
 */
#ifndef WORKER_SERVICE_PROBE_H
#define WORKER_SERVICE_PROBE_H

#include "common/scoreboard.h"
#include "worker/e2b.h"

#include <sys/queue.h>

struct service_probe;

/* Somebody who waits for the result; belongs to the caller, who must give up before freeing it. */
struct service_waiter {
    void (*on_known)(struct service_waiter *waiter, bool alive); /* once */
    bool waiting;
    LIST_ENTRY(service_waiter) link;
};

struct service_probe *service_probe_new(struct event_base *base, struct http_client *http,
                                        struct scoreboard *scoreboard) __attribute__((warn_unused_result));
/* Nobody may wait any more. NULL is allowed. */
void service_probe_free(struct service_probe *probe);

/* on_known may come before this returns. */
void service_probe_ask(struct service_probe *probe, struct e2b_service *service, struct service_waiter *waiter);
void service_probe_give_up(struct service_waiter *waiter);

#endif
