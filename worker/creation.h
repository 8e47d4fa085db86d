/*
 * creation: how a run comes to its sandbox: the create, its second try with another template or a shorter time to live
 * (http-api.md 6.3, 6.4), and what is left of it when the run ends first.
 *
 * Whatever a create may have left behind is found and deleted from here; a sandbox that was handed over is the run's,
 * its lease LIVE before anybody hears of it.
 */
#ifndef WORKER_CREATION_H
#define WORKER_CREATION_H

#include "common/run_table.h"
#include "worker/e2b.h"

struct run_host;
struct trace_span;
struct creation;

struct creation_handlers {
    /* Before a create with the fallback template; message is for the client. */
    void (*on_fallback)(void *context, const char *message);
    /* Once, last: sandbox NULL on failure, else the callee's, with its time to live. */
    void (*on_created)(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox, int64_t ttl_s);
    void *context;
};

struct creation_request {
    const char *run_id; /* outlives the creation only until it is abandoned */
    int64_t timeout_s;  /* T */
    json_t *env;        /* object of strings */
    struct run_lease_name lease;
};

/* NULL for lack of memory, without a callback. */
struct creation *creation_start(struct run_host *host, const struct e2b_context *e2b,
                                const struct creation_request *request, const struct creation_handlers *handlers)
    __attribute__((warn_unused_result));

/*
 * The run has ended: what was sent is never cut, since a sandbox may come of it. It is awaited only to be deleted, and
 * counted in host->create_count until then. No handler is called any more. cleanup: ends with the deletion, if there is
 * one; taken over, may be NULL.
 */
void creation_abandon(struct creation *creation, struct trace_span *cleanup);

#endif
