#include "worker/otlp_sender.h"

#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/http_client.h"
#include "worker/timer.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define TRIES_MAX        5
#define FIRST_WAIT_MS    1000 /* doubling */
#define LARGEST_WAIT_MS  30000
#define ANSWER_MAX_BYTES (64u << 10)
#define CONTENT_TYPE     "application/json"
#define USER_AGENT       "sandstorm/" SANDSTORM_VERSION

struct otlp_sender {
    struct event_base *base;
    struct http_client *http;
    enum telemetry_signal signal;
    const struct telemetry_endpoint *endpoint;
    otlp_sender_done *on_done;
    void *context;
    struct http_transfer *transfer; /* NULL between tries */
    struct event *timer;            /* the next try, or the end of one that never began */
    struct evbuffer *body;          /* NULL: nothing is under way */
    size_t entries;                 /* in it */
    int tries;
    bool in_hurry;
    bool is_failing; /* as was logged last */
};

static void on_timer(evutil_socket_t fd, short what, void *context);

struct otlp_sender *otlp_sender_new(struct event_base *base, struct http_client *http, enum telemetry_signal signal,
                                    const struct telemetry_endpoint *endpoint, otlp_sender_done *on_done, void *context)
{
    struct otlp_sender *sender = calloc(1, sizeof *sender);

    if (sender == NULL)
        return NULL;
    *sender = (struct otlp_sender){
        .base = base, .http = http, .signal = signal, .endpoint = endpoint, .on_done = on_done, .context = context};
    sender->timer = evtimer_new(base, on_timer, sender);
    if (sender->timer != NULL)
        return sender;
    free(sender);
    return NULL;
}

static void drop(const struct otlp_sender *sender, uint64_t entries)
{
    metrics_count(METRIC_TELEMETRY_DROPPED, NULL, sender->signal, entries);
}

void otlp_sender_free(struct otlp_sender *sender)
{
    if (sender == NULL)
        return;
    http_transfer_cancel(sender->transfer);
    event_free(sender->timer);
    if (sender->body != NULL) {
        drop(sender, sender->entries);
        evbuffer_free(sender->body);
    }
    free(sender);
}

bool otlp_sender_is_busy(const struct otlp_sender *sender)
{
    return sender->body != NULL;
}

/* --- the end of a request ---------------------------------------------------------------------------------- */

static void finish(struct otlp_sender *sender)
{
    evbuffer_free(sender->body);
    sender->body = NULL;
    sender->on_done(sender->context, sender->signal);
}

/* Says it where it is news. */
static void note_failure(struct otlp_sender *sender, const char *reason)
{
    char clean[LOG_CLEAN_BUFFER];

    if (!sender->is_failing)
        log_warn("telemetry: the collector does not take %s: %s", telemetry_signal_name(sender->signal),
                 log_clean(reason, strlen(reason), clean));
    sender->is_failing = true;
}

static void note_success(struct otlp_sender *sender)
{
    if (sender->is_failing)
        log_info("telemetry: the collector takes %s again", telemetry_signal_name(sender->signal));
    sender->is_failing = false;
}

/* {"partialSuccess":{"rejectedSpans":"3","errorMessage":"…"}}: a number may be one, or a string. */
static uint64_t count_rejected(const struct otlp_sender *sender, const struct http_answer *answer)
{
    json_t *root = json_loadb(answer->body, answer->body_length, 0, NULL);
    json_t *partial = json_object_get(root, "partialSuccess");
    json_t *value =
        json_object_get(partial, sender->signal == TELEMETRY_TRACES ? "rejectedSpans" : "rejectedDataPoints");
    long long rejected =
        json_is_string(value) ? strtoll(json_string_value(value), NULL, 10) : (long long)json_integer_value(value);
    const char *reason = json_string_value(json_object_get(partial, "errorMessage"));
    char clean[LOG_CLEAN_BUFFER];

    if (rejected > 0)
        log_warn_limited("telemetry: the collector rejected %lld of %zu %s: %s", rejected, sender->entries,
                         sender->signal == TELEMETRY_TRACES ? "spans" : "series",
                         reason != NULL ? log_clean(reason, strlen(reason), clean) : "no reason");
    json_decref(root);
    return rejected > 0 && (uint64_t)rejected <= sender->entries ? (uint64_t)rejected : 0;
}

static bool may_try_again(const struct http_answer *answer)
{
    switch (answer->outcome) {
    case TRANSFER_ANSWERED:
        return answer->status == 429 || answer->status == 502 || answer->status == 503 || answer->status == 504;
    case TRANSFER_NOT_CONNECTED:
    case TRANSFER_TLS_FAILED:
    case TRANSFER_TIMED_OUT:
    case TRANSFER_CUT:
        return true;
    case TRANSFER_TLS_UNTRUSTED:
    case TRANSFER_ANSWER_TOO_LARGE:
    case TRANSFER_INTERNAL:
    default:
        return false;
    }
}

static void try_later(struct otlp_sender *sender, int64_t retry_after_s)
{
    int64_t wait_ms = FIRST_WAIT_MS;

    for (int i = 1; i < sender->tries; i++)
        wait_ms *= 2;
    wait_ms = wait_ms / 2 + (int64_t)((double)wait_ms / 2 * drand48());
    if (retry_after_s > 0 && wait_ms < retry_after_s * 1000)
        wait_ms = retry_after_s * 1000;
    timer_start(sender->timer, wait_ms < LARGEST_WAIT_MS ? wait_ms : LARGEST_WAIT_MS);
}

static void on_answer(void *context, const struct http_answer *answer)
{
    struct otlp_sender *sender = context;
    char status[64];

    sender->transfer = NULL;
    if (answer->outcome == TRANSFER_ANSWERED && answer->status / 100 == 2) {
        note_success(sender);
        drop(sender, count_rejected(sender, answer));
        finish(sender);
        return;
    }
    snprintf(status, sizeof status, "it answered %d", answer->status);
    note_failure(sender, answer->outcome == TRANSFER_ANSWERED ? status : answer->error);
    if (may_try_again(answer) && sender->tries < TRIES_MAX && !sender->in_hurry) {
        try_later(sender, answer->retry_after_s);
        return;
    }
    drop(sender, sender->entries);
    finish(sender);
}

/* --- sending ----------------------------------------------------------------------------------------------- */

/* NULL for lack of memory. */
static struct curl_slist *make_headers(const struct otlp_sender *sender)
{
    struct curl_slist *headers = NULL, *longer;
    bool good =
        http_add_header(&headers, "Content-Type", CONTENT_TYPE) && http_add_header(&headers, "User-Agent", USER_AGENT);

    for (const struct curl_slist *given = sender->endpoint->headers; given != NULL && good; given = given->next) {
        longer = curl_slist_append(headers, given->data);
        good = longer != NULL;
        headers = good ? longer : headers;
    }
    if (good)
        return headers;
    curl_slist_free_all(headers);
    return NULL;
}

static void try_now(struct otlp_sender *sender)
{
    struct http_request request = {.method = "POST",
                                   .url = sender->endpoint->url,
                                   .headers = make_headers(sender),
                                   .body = (const char *)evbuffer_pullup(sender->body, -1),
                                   .body_length = evbuffer_get_length(sender->body),
                                   .total_timeout_ms = sender->endpoint->timeout_ms,
                                   .answer_max_bytes = ANSWER_MAX_BYTES,
                                   .on_done = on_answer,
                                   .context = sender};

    sender->tries++;
    if (request.headers != NULL && request.body != NULL)
        sender->transfer = http_client_send(sender->http, &request);
    else
        curl_slist_free_all(request.headers);
    if (sender->transfer == NULL)
        timer_start(sender->timer, 0); /* it ends from the loop */
}

/* A wait is over; or a try, which was the last, could not be sent. */
static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct otlp_sender *sender = context;

    (void)fd;
    (void)what;
    if (sender->tries < TRIES_MAX) {
        try_now(sender);
        return;
    }
    drop(sender, sender->entries);
    finish(sender);
}

void otlp_sender_send(struct otlp_sender *sender, struct evbuffer *body, size_t entries)
{
    sender->body = body;
    sender->entries = entries;
    sender->tries = 0;
    try_now(sender);
}

void otlp_sender_hurry(struct otlp_sender *sender)
{
    sender->in_hurry = true;
    if (sender->body != NULL && sender->transfer == NULL)
        timer_start(sender->timer, 0);
}
