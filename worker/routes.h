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
    bool stopping; /* the whole instance stops: no new runs */
};

extern const struct route routes[];

void route_query(struct exchange *exchange);
void route_health(struct exchange *exchange);
void route_openapi(struct exchange *exchange);
void route_docs(struct exchange *exchange);

#endif
