#include "worker/stray_search.h"

#include "common/log.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define CONNECT_TIMEOUT_MS 10000
#define LIST_TIMEOUT_MS    30000
#define ANSWER_MAX_BYTES   (1u << 20)
#define RUN_ID_MAX_BYTES   16

/* After the one before: 0, 5 and 75 s after the search began. */
static const int64_t waits_ms[] = {0, 5000, 70000};
#define LOOKUPS (sizeof waits_ms / sizeof *waits_ms)

/* The run whose sandboxes are looked for. */
struct stray {
    struct stray_search *search;
    struct e2b_service *service;
    struct http_transfer *transfer; /* NULL between lookups */
    struct event *timer;
    size_t lookup;
    char run_id[RUN_ID_MAX_BYTES + 1];
    char own_sandbox_id[SANDBOX_ID_MAX_BYTES + 1];
    int64_t expires_ms;
    TAILQ_ENTRY(stray) link;
};

TAILQ_HEAD(stray_list, stray);

struct stray_search {
    struct http_client *http;
    struct event_base *base;
    struct kill_queue *kills;
    const char *instance;
    struct stray_list strays;
    size_t in_flight;
};

static void stray_free(struct stray *stray)
{
    TAILQ_REMOVE(&stray->search->strays, stray, link);
    if (stray->transfer != NULL) {
        stray->search->in_flight--;
        http_transfer_cancel(stray->transfer);
    }
    if (stray->timer != NULL)
        event_free(stray->timer);
    e2b_service_unref(stray->service);
    free(stray);
}

static void next_lookup(struct stray *stray)
{
    int64_t wait_ms;

    if (stray->lookup >= LOOKUPS) {
        stray_free(stray);
        return;
    }
    wait_ms = waits_ms[stray->lookup];
    timer_start(stray->timer, wait_ms);
}

/* A service that does not filter must not make us delete what is a stranger's. */
static bool belongs_to(const struct stray *stray, json_t *metadata)
{
    const char *run_id = json_string_value(json_object_get(metadata, "request_id"));
    const char *instance = json_string_value(json_object_get(metadata, "sandstorm_instance"));

    return run_id != NULL && strcmp(run_id, stray->run_id) == 0 && instance != NULL &&
           strcmp(instance, stray->search->instance) == 0;
}

static void kill_found(struct stray *stray, json_t *sandboxes)
{
    size_t index;
    json_t *sandbox;

    json_array_foreach(sandboxes, index, sandbox)
    {
        const char *id = json_string_value(json_object_get(sandbox, "sandboxID"));

        if (id == NULL || !e2b_valid_sandbox_id(id) || strcmp(id, stray->own_sandbox_id) == 0 ||
            !belongs_to(stray, json_object_get(sandbox, "metadata")))
            continue;
        log_warn("run %s: found its sandbox %s, whose creation was not answered", stray->run_id, id);
        kill_queue_add(stray->search->kills, stray->service, id, stray->run_id, stray->expires_ms);
    }
}

static void on_listed(void *context, const struct http_answer *answer)
{
    struct stray *stray = context;
    char reason[E2B_MESSAGE_MAX_BYTES];
    char clean[LOG_CLEAN_BUFFER];
    json_t *sandboxes;

    stray->transfer = NULL;
    stray->search->in_flight--;
    if (e2b_classify(answer) == E2B_SUCCESS) {
        sandboxes = json_loadb(answer->body, answer->body_length, 0, NULL);
        kill_found(stray, sandboxes);
        json_decref(sandboxes);
    } else {
        e2b_message(answer, stray->service->api_key, reason);
        log_warn("run %s: cannot look for its sandbox: %s", stray->run_id, log_clean(reason, strlen(reason), clean));
    }
    next_lookup(stray);
}

/* Ids and instance names are [A-Za-z0-9._-]: the triple encoding of e2b.md 0.5 leaves only = and & to encode. */
static void look_up(struct stray *stray)
{
    struct http_request request = {
        .method = "GET",
        .unix_socket = stray->service->unix_socket,
        .connect_timeout_ms = CONNECT_TIMEOUT_MS,
        .total_timeout_ms = LIST_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_done = on_listed,
        .context = stray,
    };
    char *path = NULL;
    char *url = NULL;

    stray->lookup++;
    if (asprintf(&path,
                 "/v2/sandboxes?metadata=request_id%%3D%s%%26sandstorm_instance%%3D%s&state=running,paused&limit=100",
                 stray->run_id, stray->search->instance) >= 0 &&
        e2b_api_request(stray->service, path, &url, &request.headers)) {
        request.url = url;
        stray->transfer = http_client_send(stray->search->http, &request);
    }
    free(path);
    free(url);
    if (stray->transfer != NULL)
        stray->search->in_flight++;
    else
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

void stray_search_add(struct stray_search *search, struct e2b_service *service, const char *run_id,
                      const char *own_sandbox_id, int64_t expires_ms)
{
    struct stray *stray = calloc(1, sizeof *stray);

    if (stray == NULL || (stray->timer = evtimer_new(search->base, on_timer, stray)) == NULL) {
        log_error("run %s: no memory to look for its sandbox; it ends with its time to live", run_id);
        free(stray);
        return;
    }
    stray->search = search;
    stray->service = e2b_service_ref(service);
    stray->expires_ms = expires_ms;
    snprintf(stray->run_id, sizeof stray->run_id, "%s", run_id);
    snprintf(stray->own_sandbox_id, sizeof stray->own_sandbox_id, "%s", own_sandbox_id != NULL ? own_sandbox_id : "");
    TAILQ_INSERT_TAIL(&search->strays, stray, link);
    look_up(stray);
}

size_t stray_search_in_flight(const struct stray_search *search)
{
    return search->in_flight;
}
