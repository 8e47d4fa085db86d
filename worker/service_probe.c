#include "worker/service_probe.h"

#include "common/scoreboard.h"

#include <stdlib.h>

#define PROBE_TIMEOUT_MS 5000
#define FRESH_MS         10000
#define ANSWER_MAX_BYTES (64u << 10)

LIST_HEAD(service_waiter_list, service_waiter);

struct service_probe {
    struct http_client *http;
    struct http_transfer *transfer; /* NULL: none is under way */
    struct service_waiter_list waiters;
    bool alive;
    int64_t fresh_until_ms;
};

struct service_probe *service_probe_new(struct http_client *http)
{
    struct service_probe *probe = calloc(1, sizeof *probe);

    if (probe == NULL)
        return NULL;
    probe->http = http;
    LIST_INIT(&probe->waiters);
    return probe;
}

void service_probe_free(struct service_probe *probe)
{
    if (probe == NULL)
        return;
    http_transfer_cancel(probe->transfer);
    free(probe);
}

void service_probe_give_up(struct service_waiter *waiter)
{
    if (!waiter->waiting)
        return;
    waiter->waiting = false;
    LIST_REMOVE(waiter, link);
}

static void on_done(void *context, const struct http_answer *answer)
{
    struct service_probe *probe = context;
    struct service_waiter *waiter;

    probe->transfer = NULL;
    probe->alive = answer->outcome == TRANSFER_ANSWERED && answer->status / 100 == 2;
    probe->fresh_until_ms = monotonic_ms() + FRESH_MS;
    while ((waiter = LIST_FIRST(&probe->waiters)) != NULL) {
        service_probe_give_up(waiter);
        waiter->on_known(waiter, probe->alive);
    }
}

static bool start(struct service_probe *probe, const struct e2b_service *service)
{
    struct http_request request = {
        .method = "GET",
        .unix_socket = service->unix_socket,
        .connect_timeout_ms = PROBE_TIMEOUT_MS,
        .total_timeout_ms = PROBE_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_done = on_done,
        .context = probe,
    };
    char *url = NULL;

    if (e2b_api_request(service, "/health", &url, &request.headers)) {
        request.url = url;
        probe->transfer = http_client_send(probe->http, &request);
    }
    free(url);
    return probe->transfer != NULL;
}

void service_probe_ask(struct service_probe *probe, const struct e2b_service *service, struct service_waiter *waiter)
{
    waiter->waiting = false;
    if (monotonic_ms() < probe->fresh_until_ms) {
        waiter->on_known(waiter, probe->alive);
        return;
    }
    if (probe->transfer == NULL && !start(probe, service)) {
        waiter->on_known(waiter, false);
        return;
    }
    waiter->waiting = true;
    LIST_INSERT_HEAD(&probe->waiters, waiter, link);
}
