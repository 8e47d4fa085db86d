#include "worker/stray_search.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/sandbox_list.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

/* At once, after this time, and at the end. */
#define LOOKUPS_MAX      3
#define SECOND_LOOKUP_MS 5000

/* The run whose sandboxes are looked for. */
struct stray {
    struct stray_search *search;
    struct e2b_service *service;
    struct sandbox_list *listing; /* NULL between lookups */
    struct event *timer;
    unsigned lookups;
    int64_t until_ms;
    char run_id[RUN_ID_DIGITS + 1];
    char own_sandbox_id[SANDBOX_ID_MAX_BYTES + 1];
    int64_t expires_ms;
    struct run_lease_name lease;
    TAILQ_ENTRY(stray) link;
};

TAILQ_HEAD(stray_list, stray);

struct stray_search {
    struct http_client *http;
    struct event_base *base;
    struct kill_queue *kills;
    const char *instance;
    struct stray_list strays;
};

static void stray_free(struct stray *stray)
{
    TAILQ_REMOVE(&stray->search->strays, stray, link);
    sandbox_list_cancel(stray->listing);
    if (stray->timer != NULL)
        event_free(stray->timer);
    e2b_service_unref(stray->service);
    free(stray);
}

static void next_lookup(struct stray *stray)
{
    int64_t left_ms = stray->until_ms - monotonic_ms();

    if (left_ms > 0 && stray->lookups < LOOKUPS_MAX) {
        timer_start(stray->timer, stray->lookups == 1 && left_ms > SECOND_LOOKUP_MS ? SECOND_LOOKUP_MS : left_ms);
        return;
    }
    kill_queue_forget_lease(stray->search->kills, stray->lease);
    stray_free(stray);
}

static void on_found(void *context, const struct listed_sandbox *sandbox)
{
    struct stray *stray = context;

    if (strcmp(sandbox->id, stray->own_sandbox_id) == 0 || kill_queue_has(stray->search->kills, sandbox->id))
        return;
    metrics_add(METRIC_LEAKS_REAPED, 1);
    log_warn_limited("run %s: found its sandbox %s, whose creation was not answered", stray->run_id, sandbox->id);
    kill_queue_add(stray->search->kills, &(struct kill_order){.service = stray->service,
                                                              .sandbox_id = sandbox->id,
                                                              .run_id = stray->run_id,
                                                              .expires_ms = stray->expires_ms});
}

static void on_listed(void *context, const char *error)
{
    struct stray *stray = context;

    stray->listing = NULL;
    if (error != NULL)
        log_warn_limited("run %s: cannot look for its sandbox: %s", stray->run_id, error);
    next_lookup(stray);
}

static void look_up(struct stray *stray)
{
    const struct sandbox_list_handlers handlers = {.on_sandbox = on_found, .on_end = on_listed, .context = stray};
    struct stray_search *search = stray->search;

    stray->lookups++;
    stray->listing = sandbox_list_start(search->http, stray->service, search->instance, stray->run_id, &handlers);
    if (stray->listing == NULL)
        next_lookup(stray);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    look_up(context);
}

struct stray_search *stray_search_new(struct http_client *http, struct event_base *base, struct kill_queue *kills,
                                      const char *instance)
{
    struct stray_search *search = calloc(1, sizeof *search);

    if (search == NULL)
        return NULL;
    TAILQ_INIT(&search->strays);
    search->http = http;
    search->base = base;
    search->kills = kills;
    search->instance = instance;
    return search;
}

void stray_search_free(struct stray_search *search)
{
    struct stray *stray, *next;

    if (search == NULL)
        return;
    for (stray = TAILQ_FIRST(&search->strays); stray != NULL; stray = next) {
        next = TAILQ_NEXT(stray, link);
        stray_free(stray);
    }
    free(search);
}

void stray_search_add(struct stray_search *search, const struct stray_order *order)
{
    struct stray *stray = calloc(1, sizeof *stray);

    if (stray == NULL || (stray->timer = evtimer_new(search->base, on_timer, stray)) == NULL) {
        log_error("run %s: no memory to look for its sandbox; it ends with its time to live", order->run_id);
        free(stray);
        return;
    }
    stray->search = search;
    stray->service = e2b_service_ref(order->service);
    stray->until_ms = order->until_ms;
    stray->expires_ms = order->expires_ms;
    stray->lease = order->lease;
    snprintf(stray->run_id, sizeof stray->run_id, "%s", order->run_id);
    snprintf(stray->own_sandbox_id, sizeof stray->own_sandbox_id, "%s",
             order->own_sandbox_id != NULL ? order->own_sandbox_id : "");
    TAILQ_INSERT_TAIL(&search->strays, stray, link);
    look_up(stray);
}

size_t stray_search_in_flight(const struct stray_search *search)
{
    const struct stray *stray;
    size_t in_flight = 0;

    TAILQ_FOREACH(stray, &search->strays, link) in_flight += stray->listing != NULL;
    return in_flight;
}
