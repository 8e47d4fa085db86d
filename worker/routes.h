/*
 * routes: what the server offers, one file per family behind one table.
 */
#ifndef WORKER_ROUTES_H
#define WORKER_ROUTES_H

#include "common/environment.h"
#include "worker/run.h"
#include "worker/server.h"
#include "worker/trigger.h"

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

/*
 * The fixed routes, and one for each webhook trigger of the set, which has to outlive them. The caller's to free. NULL
 * for lack of memory.
 */
struct route *routes_make(const struct trigger_set *triggers) __attribute__((warn_unused_result));

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
void route_trigger(struct exchange *exchange);
void route_webhook(struct exchange *exchange);

/* Does GET /health with this query need the bearer? */
bool route_health_is_deep(struct span query);
/*
 * Which sandbox service the run is to use (3.5): what is missing for it, or NULL with the order's service, NULL there
 * for lack of memory.
 */
const char *route_choose_service(const struct route_context *context, struct run_order *order);

/* False after a 503: the instance stops, which began while this request came in. */
bool route_takes_runs(struct exchange *exchange) __attribute__((warn_unused_result));
/* Takes a place among max_runs; false, and counted, when there is none: then ROUTE_FULL_TEXT is the answer's detail. */
bool route_admit_run(struct run_host *host) __attribute__((warn_unused_result));
#define ROUTE_FULL_TEXT "Too many concurrent runs"
/* The body as JSON, whatever the Content-Type says. */
bool route_read_json(const struct exchange *exchange, struct json_text *root) __attribute__((warn_unused_result));

/* How a trigger fires. */
enum trigger_firing {
    TRIGGER_FIRED,
    TRIGGER_FULL, /* max_runs */
    TRIGGER_NO_MEMORY,
};

/*
 * Starts the run of a trigger with this prompt, taken over. headers: of the request that fires it; NULL: there is none.
 * TRIGGER_FIRED: *run_id names it.
 */
enum trigger_firing route_fire(const struct route_context *context, const struct trigger *trigger, json_t *prompt,
                               const struct evkeyvalq *headers, uint64_t *run_id) __attribute__((warn_unused_result));

/* The sandbox service that the environment alone chooses (3.5); the caller's. NULL for lack of memory. */
struct e2b_service *route_service(const struct route_context *context) __attribute__((warn_unused_result));

#endif
