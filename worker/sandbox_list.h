/*
 * sandbox_list: the sandboxes of this instance that exist at the sandbox service, by their metadata (e2b.md 0.5, A.6).
 *
 * All pages are read. A service that does not filter is not believed: what has another instance's name, or none, is
 * never told.
 */
#ifndef WORKER_SANDBOX_LIST_H
#define WORKER_SANDBOX_LIST_H

#include "worker/e2b.h"

struct sandbox_list; /* a listing under way */

struct listed_sandbox {
    const char *id;
    const char *run_id; /* request_id of its metadata, "" if it has none */
    int64_t started_us; /* since 1970, by the service's clock; 0: not told */
};

struct sandbox_list_handlers {
    void (*on_sandbox)(void *context, const struct listed_sandbox *sandbox);
    /* Once, last, unless cancelled. error NULL: that was all of them; else one clean line. */
    void (*on_end)(void *context, const char *error);
    void *context;
};

/*
 * run_id NULL: of all runs. NULL for lack of memory, without a callback; never calls back before it returned.
 */
struct sandbox_list *sandbox_list_start(struct http_client *http, struct e2b_service *service, const char *instance,
                                        const char *run_id, const struct sandbox_list_handlers *handlers)
    __attribute__((warn_unused_result));
/* Without callbacks. NULL is allowed. */
void sandbox_list_cancel(struct sandbox_list *list);

#endif
