/*
 * routes: what the server offers, one file per family behind one table.
 */
#ifndef WORKER_ROUTES_H
#define WORKER_ROUTES_H

#include "common/environment.h"
#include "worker/server.h"

/* What handlers find in exchange->context. */
struct route_context {
    struct run_host *host;
    const char *local_socket;              /* NULL: this instance has no local runtime */
    const struct environment *environment; /* of the start or reload: where the sandbox service is */
    struct page *docs;
    struct page *dashboard;
    struct service_probe *probe;
    bool stopping; /* the whole instance stops: no new runs */
};

extern const struct route routes[];

void route_query(struct exchange *exchange);
void route_runs(struct exchange *exchange);
void route_run(struct exchange *exchange);
void route_cancel(struct exchange *exchange);
void route_health(struct exchange *exchange);
void route_openapi(struct exchange *exchange);
void route_docs(struct exchange *exchange);
void route_dashboard(struct exchange *exchange);
void route_ready(struct exchange *exchange);
void route_metrics(struct exchange *exchange);
void route_status(struct exchange *exchange);

/* Does GET /health with this query need the bearer? */
bool route_health_is_deep(struct span query);
/* The sandbox service that the environment alone chooses (3.5); the caller's. NULL for lack of memory. */
struct e2b_service *route_service(const struct route_context *context) __attribute__((warn_unused_result));

#endif
