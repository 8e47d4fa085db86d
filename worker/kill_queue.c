#include "worker/kill_queue.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/scoreboard.h"
#include "worker/e2b_metrics.h"
#include "worker/timer.h"
#include "worker/trace_span.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define DELETE_TIMEOUT_MS  30000
#define ANSWER_MAX_BYTES   (1u << 20)
#define FIRST_WAIT_MS      250
#define LARGEST_WAIT_MS    30000
#define CONFLICT_WAIT_MS   1000
#define AFTER_EXPIRY_MS    60000
#define SLOW_WAIT_MS       LARGEST_WAIT_MS
#define UNAUTHORIZED_TRIES 3
#define NOT_DELETED        "sandbox_not_deleted" /* error of the span */

/* One sandbox to be deleted. */
struct kill {
    struct kill_queue *queue;
    struct e2b_service *service;
    struct http_transfer *transfer; /* NULL between tries */
    struct event *retry_timer;
    char sandbox_id[SANDBOX_ID_MAX_BYTES + 1];
    char run_id[RUN_ID_DIGITS + 1];
    int64_t expires_ms;
    struct run_lease_name lease;
    struct trace_span *cleanup;
    int tries;
    TAILQ_ENTRY(kill) link;
};

TAILQ_HEAD(kill_list, kill);

struct kill_queue {
    struct http_client *http;
    struct event_base *base;
    struct scoreboard *scoreboard;
    struct kill_list kills;
    size_t length;
    void (*on_empty)(void *context);
    void *on_empty_context;
};

static void kill_free(struct kill *kill)
{
    TAILQ_REMOVE(&kill->queue->kills, kill, link);
    kill->queue->length--;
    http_transfer_cancel(kill->transfer);
    if (kill->retry_timer != NULL)
        event_free(kill->retry_timer);
    e2b_service_unref(kill->service);
    trace_span_free(kill->cleanup);
    free(kill);
}

/* reason: why it is given up; NULL: it is deleted. */
static void kill_done(struct kill *kill, const char *reason)
{
    struct kill_queue *queue = kill->queue;

    trace_span_end(kill->cleanup, kill->sandbox_id, reason != NULL ? NOT_DELETED : NULL, reason != NULL ? reason : "");
    kill->cleanup = NULL;
    kill_queue_forget_lease(queue, kill->lease);
    kill_free(kill);
    if (queue->length == 0 && queue->on_empty != NULL)
        queue->on_empty(queue->on_empty_context);
}

/* What the queue does with a failure: the kill column of e2b.md A.4. */
enum kill_action {
    KILL_DONE,  /* deleted, or was not there */
    KILL_RETRY, /* with back-off */
    KILL_WAIT,  /* a second: it is in the wrong state */
    KILL_SLOW,  /* half a minute: a person must mend it */
    KILL_FEW,   /* a few tries, then its time to live must do */
    KILL_DROP,  /* our bug: trying again would not help */
};

static enum kill_action action_for(const struct http_answer *answer)
{
    if (answer->outcome == TRANSFER_ANSWER_TOO_LARGE && answer->status / 100 == 2)
        return KILL_DONE; /* whatever it goes on to say */
    switch (e2b_classify(answer)) {
    case E2B_SUCCESS:
    case E2B_404:
        return KILL_DONE;
    case E2B_409:
        return KILL_WAIT;
    case E2B_TLS_CERTIFICATE:
        return KILL_SLOW;
    case E2B_401:
    case E2B_403:
    case E2B_403_TEMPLATE:
        return KILL_FEW;
    case E2B_400:
    case E2B_OTHER_4XX:
        return KILL_DROP;
    default:
        return KILL_RETRY;
    }
}

static int64_t back_off_ms(const struct kill *kill, int64_t retry_after_s)
{
    int64_t wait_ms = FIRST_WAIT_MS;

    for (int i = 1; i < kill->tries && wait_ms < LARGEST_WAIT_MS; i++)
        wait_ms *= 2;
    wait_ms = wait_ms / 2 + (int64_t)((double)wait_ms / 2 * drand48());
    if (wait_ms > LARGEST_WAIT_MS)
        wait_ms = LARGEST_WAIT_MS;
    return wait_ms > retry_after_s * 1000 ? wait_ms : retry_after_s * 1000;
}

static void give_up(struct kill *kill, const char *blame, const char *reason)
{
    char clean[LOG_CLEAN_BUFFER];

    log_error("run %s: sandbox %s is not deleted after %d tries%s: %s; it ends with its time to live", kill->run_id,
              kill->sandbox_id, kill->tries, blame, log_clean(reason, strlen(reason), clean));
    kill_done(kill, reason);
}

static void try_later(struct kill *kill, int64_t wait_ms, const char *reason)
{
    char clean[LOG_CLEAN_BUFFER];

    if (monotonic_ms() + wait_ms > kill->expires_ms + AFTER_EXPIRY_MS) {
        give_up(kill, "", reason);
        return;
    }
    log_warn_limited("run %s: cannot delete sandbox %s: %s; next try in %lld ms", kill->run_id, kill->sandbox_id,
                     log_clean(reason, strlen(reason), clean), (long long)wait_ms);
    timer_start(kill->retry_timer, wait_ms);
}

static void act(struct kill *kill, enum kill_action action, const struct http_answer *answer, const char *reason)
{
    switch (action) {
    case KILL_DONE:
        log_debug("run %s: sandbox %s deleted", kill->run_id, kill->sandbox_id);
        kill_done(kill, NULL);
        break;
    case KILL_RETRY:
        try_later(kill, back_off_ms(kill, answer->retry_after_s), reason);
        break;
    case KILL_WAIT:
        try_later(kill, CONFLICT_WAIT_MS, reason);
        break;
    case KILL_SLOW:
        try_later(kill, SLOW_WAIT_MS, reason);
        break;
    case KILL_FEW:
        if (kill->tries >= UNAUTHORIZED_TRIES)
            give_up(kill, "", reason);
        else
            try_later(kill, back_off_ms(kill, answer->retry_after_s), reason);
        break;
    case KILL_DROP:
        give_up(kill, ", our request is wrong (a bug)", reason);
        break;
    default:
        log_panic("kill_queue: action %d", (int)action);
    }
}

static void on_answer(void *context, const struct http_answer *answer)
{
    struct kill *kill = context;
    enum kill_action action = action_for(answer);
    char reason[E2B_MESSAGE_MAX_BYTES] = "";

    kill->transfer = NULL;
    e2b_count_answer(METRIC_OPERATION_DELETE, answer);
    if (action != KILL_DONE)
        e2b_message(answer, kill->service->api_key, reason);
    act(kill, action, answer, reason);
}

static void send_delete(struct kill *kill)
{
    char path[sizeof "/sandboxes/" + SANDBOX_ID_MAX_BYTES];
    struct http_request request = {
        .method = "DELETE",
        .total_timeout_ms = DELETE_TIMEOUT_MS,
        .answer_max_bytes = ANSWER_MAX_BYTES,
        .on_done = on_answer,
        .context = kill,
    };

    kill->tries++;
    snprintf(path, sizeof path, "/sandboxes/%s", kill->sandbox_id);
    kill->transfer = e2b_api_send(kill->queue->http, kill->service, path, &request);
    if (kill->transfer == NULL)
        try_later(kill, back_off_ms(kill, 0), "out of memory");
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    e2b_count_retry(METRIC_OPERATION_DELETE);
    send_delete(context);
}

struct kill_queue *kill_queue_new(struct http_client *http, struct event_base *base, struct scoreboard *scoreboard)
{
    struct kill_queue *queue = calloc(1, sizeof *queue);

    if (queue == NULL)
        return NULL;
    queue->http = http;
    queue->base = base;
    queue->scoreboard = scoreboard;
    TAILQ_INIT(&queue->kills);
    return queue;
}

void kill_queue_free(struct kill_queue *queue)
{
    struct kill *kill, *next;

    if (queue == NULL)
        return;
    for (kill = TAILQ_FIRST(&queue->kills); kill != NULL; kill = next) {
        next = TAILQ_NEXT(kill, link);
        log_error("run %s: sandbox %s is not deleted yet, and left to others", kill->run_id, kill->sandbox_id);
        kill_free(kill);
    }
    free(queue);
}

void kill_queue_add(struct kill_queue *queue, const struct kill_order *order)
{
    struct kill *kill = calloc(1, sizeof *kill);

    if (order->lease.id != 0)
        run_lease_hold(queue->scoreboard, order->lease, RUN_LEASE_DELETING, order->sandbox_id, order->expires_ms);
    if (kill == NULL || (kill->retry_timer = evtimer_new(queue->base, on_retry, kill)) == NULL) {
        log_error("run %s: no memory to delete sandbox %s; it ends with its time to live", order->run_id,
                  order->sandbox_id);
        trace_span_free(order->cleanup);
        free(kill);
        return;
    }
    kill->queue = queue;
    kill->service = e2b_service_ref(order->service);
    kill->expires_ms = order->expires_ms;
    kill->lease = order->lease;
    kill->cleanup = order->cleanup;
    snprintf(kill->sandbox_id, sizeof kill->sandbox_id, "%s", order->sandbox_id);
    snprintf(kill->run_id, sizeof kill->run_id, "%s", order->run_id);
    TAILQ_INSERT_TAIL(&queue->kills, kill, link);
    queue->length++;
    send_delete(kill);
}

void kill_queue_forget_lease(struct kill_queue *queue, struct run_lease_name lease)
{
    if (lease.id != 0)
        run_lease_clear(queue->scoreboard, lease);
}

bool kill_queue_has(const struct kill_queue *queue, const char *sandbox_id)
{
    const struct kill *kill;

    TAILQ_FOREACH(kill, &queue->kills, link)
    {
        if (strcmp(kill->sandbox_id, sandbox_id) == 0)
            return true;
    }
    return false;
}

size_t kill_queue_length(const struct kill_queue *queue)
{
    return queue->length;
}

size_t kill_queue_failed(const struct kill_queue *queue)
{
    const struct kill *kill;
    size_t failed = 0;

    TAILQ_FOREACH(kill, &queue->kills, link)
    failed += kill->tries > 1 || kill->transfer == NULL;
    return failed;
}

void kill_queue_on_empty(struct kill_queue *queue, void (*on_empty)(void *context), void *context)
{
    queue->on_empty = on_empty;
    queue->on_empty_context = context;
}
