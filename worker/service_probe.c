#include "worker/service_probe.h"

#include "common/clock.h"
#include "worker/e2b_metrics.h"
#include "worker/timer.h"

#include <stdlib.h>

#define PROBE_TIMEOUT_MS 5000
#define FRESH_MS         10000
#define ANSWER_MAX_BYTES (64u << 10)
/* A worker that asks and dies: after this another one asks. */
#define ASKED_MS (PROBE_TIMEOUT_MS + 1000)
/* How often is looked whether another worker's probe is done. */
#define LOOK_MS 20

LIST_HEAD(service_waiter_list, service_waiter);

struct service_probe {
    struct http_client *http;
    struct scoreboard *scoreboard;
    struct e2b_service *service;    /* to be asked; NULL while nobody waits */
    struct http_transfer *transfer; /* NULL: none of ours is under way */
    struct event *timer;            /* looks for the result of another worker */
    struct service_waiter_list waiters;
};

static void on_timer(evutil_socket_t fd, short what, void *context);

struct service_probe *service_probe_new(struct event_base *base, struct http_client *http,
                                        struct scoreboard *scoreboard)
{
    struct service_probe *probe = calloc(1, sizeof *probe);

    if (probe == NULL)
        return NULL;
    probe->http = http;
    probe->scoreboard = scoreboard;
    probe->timer = evtimer_new(base, on_timer, probe);
    LIST_INIT(&probe->waiters);
    if (probe->timer != NULL)
        return probe;
    free(probe);
    return NULL;
}

void service_probe_free(struct service_probe *probe)
{
    if (probe == NULL)
        return;
    if (probe->transfer != NULL)
        atomic_store(&probe->scoreboard->service_asked_ms, 0);
    http_transfer_cancel(probe->transfer);
    e2b_service_unref(probe->service);
    event_free(probe->timer);
    free(probe);
}

void service_probe_give_up(struct service_waiter *waiter)
{
    if (!waiter->waiting)
        return;
    waiter->waiting = false;
    LIST_REMOVE(waiter, link);
}

/* False when nobody knows, or not any more. */
static bool is_known(const struct service_probe *probe, bool *alive)
{
    int64_t known_ms = atomic_load(&probe->scoreboard->service_known_ms);

    *alive = known_ms > 0;
    return monotonic_ms() < (*alive ? known_ms : -known_ms);
}

static void tell_all(struct service_probe *probe, bool alive)
{
    struct service_waiter *waiter;

    event_del(probe->timer);
    e2b_service_unref(probe->service);
    probe->service = NULL;
    while ((waiter = LIST_FIRST(&probe->waiters)) != NULL) {
        service_probe_give_up(waiter);
        waiter->on_known(waiter, alive);
    }
}

/* Tells the other workers first: who waits may ask again. */
static void learn(struct service_probe *probe, bool alive)
{
    int64_t until_ms = monotonic_ms() + FRESH_MS;

    atomic_store(&probe->scoreboard->service_known_ms, alive ? until_ms : -until_ms);
    atomic_store(&probe->scoreboard->service_asked_ms, 0);
    tell_all(probe, alive);
}

static void on_done(void *context, const struct http_answer *answer)
{
    struct service_probe *probe = context;

    probe->transfer = NULL;
    e2b_count_answer(METRIC_OPERATION_HEALTH, answer);
    learn(probe, answer->outcome == TRANSFER_ANSWERED && answer->status / 100 == 2);
}

static bool start(struct service_probe *probe)
{
    struct http_request request = {
        .method = "GET",
        .total_timeout_ms = PROBE_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_done = on_done,
        .context = probe,
    };

    probe->transfer = e2b_api_send(probe->http, probe->service, "/health", &request);
    return probe->transfer != NULL;
}

/* True for the one worker that may ask now. */
static bool claim(struct service_probe *probe)
{
    int64_t now_ms = monotonic_ms();
    int64_t asked_ms = atomic_load(&probe->scoreboard->service_asked_ms);

    return asked_ms <= now_ms &&
           atomic_compare_exchange_strong(&probe->scoreboard->service_asked_ms, &asked_ms, now_ms + ASKED_MS);
}

/* Somebody waits: the result is there, or it is our turn to ask, or another worker's. */
static void proceed(struct service_probe *probe)
{
    bool alive;

    if (is_known(probe, &alive))
        tell_all(probe, alive);
    else if (!claim(probe))
        timer_start(probe->timer, LOOK_MS);
    else if (!start(probe))
        learn(probe, false);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct service_probe *probe = context;

    (void)fd;
    (void)what;
    if (!LIST_EMPTY(&probe->waiters))
        proceed(probe);
}

void service_probe_ask(struct service_probe *probe, struct e2b_service *service, struct service_waiter *waiter)
{
    bool is_first = LIST_EMPTY(&probe->waiters) && probe->transfer == NULL;

    waiter->waiting = true;
    LIST_INSERT_HEAD(&probe->waiters, waiter, link);
    if (!is_first)
        return;
    e2b_service_unref(probe->service);
    probe->service = e2b_service_ref(service);
    proceed(probe);
}
