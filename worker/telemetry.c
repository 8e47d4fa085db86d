#include "worker/telemetry.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/http_client.h"
#include "worker/otlp_sender.h"
#include "worker/timer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define CONNECT_TIMEOUT_MS 10000

/* A span as it will be sent. */
struct queued_span {
    STAILQ_ENTRY(queued_span) link;
    size_t length;
    char text[];
};

STAILQ_HEAD(span_queue, queued_span);

struct telemetry {
    struct telemetry_options *options;
    struct telemetry_context context;
    struct http_client *http;
    struct otlp_sender *senders[TELEMETRY_SIGNALS]; /* NULL: the signal is not sent */
    struct evbuffer *scratch;                       /* one span while it is written */
    struct span_queue spans;
    int64_t span_count;
    struct event *span_timer;   /* runs while spans wait for others */
    struct event *metric_timer; /* runs in the chosen worker */
    struct event *flush_timer;  /* end of the patience */
    bool is_elected;
    bool is_flushing;
    bool is_late; /* it took too long */
};

static void on_sent(void *context, enum telemetry_signal signal);

/* --- spans ------------------------------------------------------------------------------------------------- */

static struct queued_span *take_span(struct telemetry *telemetry)
{
    struct queued_span *span = STAILQ_FIRST(&telemetry->spans);

    STAILQ_REMOVE_HEAD(&telemetry->spans, link);
    telemetry->span_count--;
    return span;
}

/* One request's spans, out of the queue; NULL for lack of memory, and they are lost. */
static struct evbuffer *make_batch(struct telemetry *telemetry, size_t *count)
{
    struct evbuffer *body = evbuffer_new();
    bool good = body != NULL && otlp_write_head(body, TELEMETRY_TRACES, telemetry->options->resource);

    for (*count = 0; telemetry->span_count > 0 && *count < (size_t)telemetry->options->span_batch_max; ++*count) {
        struct queued_span *span = take_span(telemetry);

        good = good && (*count == 0 || evbuffer_add(body, ",", 1) == 0) &&
               evbuffer_add(body, span->text, span->length) == 0;
        free(span);
    }
    if (good && otlp_write_tail(body))
        return body;
    if (body != NULL)
        evbuffer_free(body);
    return NULL;
}

static void send_spans(struct telemetry *telemetry)
{
    struct evbuffer *body;
    size_t count;

    event_del(telemetry->span_timer);
    body = make_batch(telemetry, &count);
    if (body != NULL)
        otlp_sender_send(telemetry->senders[TELEMETRY_TRACES], body, count);
    else
        metrics_count(METRIC_TELEMETRY_DROPPED, NULL, METRIC_TELEMETRY_TRACES, count);
}

/* Sends a batch that is full, or will not get fuller; else waits for others. */
static void consider_spans(struct telemetry *telemetry)
{
    if (telemetry->span_count == 0 || otlp_sender_is_busy(telemetry->senders[TELEMETRY_TRACES]))
        return;
    if (telemetry->is_flushing || telemetry->span_count >= telemetry->options->span_batch_max)
        send_spans(telemetry);
    else if (!evtimer_pending(telemetry->span_timer, NULL))
        timer_start(telemetry->span_timer, telemetry->options->span_delay_ms);
}

static void on_span_timer(evutil_socket_t fd, short what, void *context)
{
    struct telemetry *telemetry = context;

    (void)fd;
    (void)what;
    if (telemetry->span_count > 0 && !otlp_sender_is_busy(telemetry->senders[TELEMETRY_TRACES]))
        send_spans(telemetry);
}

/* False: there is no room, or no memory. */
static bool queue_span(struct telemetry *telemetry, const struct otlp_span *span)
{
    struct queued_span *queued;
    size_t length;

    if (telemetry->span_count >= telemetry->options->span_queue_max || !otlp_write_span(telemetry->scratch, span))
        return false;
    length = evbuffer_get_length(telemetry->scratch);
    queued = malloc(sizeof *queued + length);
    if (queued == NULL)
        return false;
    queued->length = length;
    evbuffer_remove(telemetry->scratch, queued->text, length);
    STAILQ_INSERT_TAIL(&telemetry->spans, queued, link);
    telemetry->span_count++;
    return true;
}

void telemetry_add(struct telemetry *telemetry, const struct otlp_span *span)
{
    if (telemetry == NULL || telemetry->senders[TELEMETRY_TRACES] == NULL)
        return;
    if (!queue_span(telemetry, span)) {
        evbuffer_drain(telemetry->scratch, evbuffer_get_length(telemetry->scratch));
        metrics_count(METRIC_TELEMETRY_DROPPED, NULL, METRIC_TELEMETRY_TRACES, 1);
        return;
    }
    consider_spans(telemetry);
}

const struct telemetry_sampler *telemetry_sampler_of(const struct telemetry *telemetry)
{
    return &telemetry->options->sampler;
}

/* --- metrics ----------------------------------------------------------------------------------------------- */

/* What is still under way is older: the next one will say it all. */
static void send_metrics(struct telemetry *telemetry)
{
    struct otlp_sender *sender = telemetry->senders[TELEMETRY_METRICS];
    struct evbuffer *body = evbuffer_new();
    size_t count = 0;

    if (body == NULL)
        return;
    if (otlp_write_head(body, TELEMETRY_METRICS, telemetry->options->resource) &&
        otlp_write_metrics(body, telemetry->context.scoreboard, realtime_us(), &count) && otlp_write_tail(body) &&
        !otlp_sender_is_busy(sender)) {
        otlp_sender_send(sender, body, count);
        return;
    }
    metrics_count(METRIC_TELEMETRY_DROPPED, NULL, METRIC_TELEMETRY_METRICS, count);
    evbuffer_free(body);
}

static void on_metric_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    send_metrics(context);
}

void telemetry_elect(struct telemetry *telemetry)
{
    if (telemetry == NULL || telemetry->senders[TELEMETRY_METRICS] == NULL || telemetry->is_elected)
        return;
    telemetry->is_elected = true;
    timer_start(telemetry->metric_timer, telemetry->options->metric_interval_ms);
}

void telemetry_resign(struct telemetry *telemetry)
{
    if (telemetry == NULL)
        return;
    telemetry->is_elected = false;
    event_del(telemetry->metric_timer);
}

/* --- the end ----------------------------------------------------------------------------------------------- */

static bool is_busy(const struct telemetry *telemetry)
{
    for (int i = 0; i < TELEMETRY_SIGNALS; i++) {
        if (telemetry->senders[i] != NULL && otlp_sender_is_busy(telemetry->senders[i]))
            return true;
    }
    return telemetry->span_count > 0;
}

static void on_sent(void *context, enum telemetry_signal signal)
{
    struct telemetry *telemetry = context;

    if (signal == TELEMETRY_TRACES)
        consider_spans(telemetry);
    if (telemetry->is_flushing && !is_busy(telemetry))
        telemetry->context.on_flushed(telemetry->context.context);
}

static void on_late(evutil_socket_t fd, short what, void *context)
{
    struct telemetry *telemetry = context;

    (void)fd;
    (void)what;
    if (!is_busy(telemetry))
        return;
    telemetry->is_late = true;
    log_warn("telemetry: the collector is too slow: %" PRId64 " spans and what is under way are not waited for",
             telemetry->span_count);
    telemetry->context.on_flushed(telemetry->context.context);
}

static void begin_flush(struct telemetry *telemetry)
{
    telemetry->is_flushing = true;
    timer_start(telemetry->flush_timer, TELEMETRY_FLUSH_MS);
    event_del(telemetry->metric_timer);
    for (int i = 0; i < TELEMETRY_SIGNALS; i++) {
        if (telemetry->senders[i] != NULL)
            otlp_sender_hurry(telemetry->senders[i]);
    }
    if (telemetry->is_elected)
        send_metrics(telemetry);
    if (telemetry->senders[TELEMETRY_TRACES] != NULL)
        consider_spans(telemetry);
}

bool telemetry_flush(struct telemetry *telemetry)
{
    if (telemetry == NULL)
        return true;
    if (!telemetry->is_flushing)
        begin_flush(telemetry);
    return telemetry->is_late || !is_busy(telemetry);
}

/* --- life -------------------------------------------------------------------------------------------------- */

static bool make_senders(struct telemetry *telemetry)
{
    for (int i = 0; i < TELEMETRY_SIGNALS; i++) {
        const struct telemetry_endpoint *endpoint = &telemetry->options->endpoints[i];

        if (endpoint->url == NULL)
            continue;
        telemetry->senders[i] = otlp_sender_new(telemetry->context.base, telemetry->http, (enum telemetry_signal)i,
                                                endpoint, on_sent, telemetry);
        if (telemetry->senders[i] == NULL)
            return false;
    }
    return true;
}

struct telemetry *telemetry_new(struct telemetry_options *options, const struct telemetry_context *context)
{
    struct telemetry *telemetry = options != NULL ? calloc(1, sizeof *telemetry) : NULL;

    if (telemetry == NULL) {
        telemetry_options_free(options);
        return NULL;
    }
    telemetry->options = options;
    telemetry->context = *context;
    STAILQ_INIT(&telemetry->spans);
    telemetry->http = http_client_new(
        context->base, &(struct http_client_options){
                           .ca_file = options->ca_file, .proxy = "", .connect_timeout_ms = CONNECT_TIMEOUT_MS});
    telemetry->scratch = evbuffer_new();
    telemetry->span_timer = evtimer_new(context->base, on_span_timer, telemetry);
    telemetry->metric_timer = event_new(context->base, -1, EV_PERSIST, on_metric_timer, telemetry);
    telemetry->flush_timer = evtimer_new(context->base, on_late, telemetry);
    if (telemetry->http != NULL && telemetry->scratch != NULL && telemetry->span_timer != NULL &&
        telemetry->metric_timer != NULL && telemetry->flush_timer != NULL && make_senders(telemetry))
        return telemetry;
    telemetry_free(telemetry);
    return NULL;
}

void telemetry_free(struct telemetry *telemetry)
{
    if (telemetry == NULL)
        return;
    for (int i = 0; i < TELEMETRY_SIGNALS; i++)
        otlp_sender_free(telemetry->senders[i]);
    http_client_free(telemetry->http);
    metrics_count(METRIC_TELEMETRY_DROPPED, NULL, METRIC_TELEMETRY_TRACES, (uint64_t)telemetry->span_count);
    while (telemetry->span_count > 0)
        free(take_span(telemetry));
    if (telemetry->scratch != NULL)
        evbuffer_free(telemetry->scratch);
    if (telemetry->span_timer != NULL)
        event_free(telemetry->span_timer);
    if (telemetry->metric_timer != NULL)
        event_free(telemetry->metric_timer);
    if (telemetry->flush_timer != NULL)
        event_free(telemetry->flush_timer);
    telemetry_options_free(telemetry->options);
    free(telemetry);
}

/* --- for a person ------------------------------------------------------------------------------------------ */

static void log_fault(const char *variable, const char *reason)
{
    log_warn("telemetry: %s %s", variable, reason);
}

void telemetry_check(const struct environment *environment)
{
    struct telemetry_options *options = telemetry_options_read(environment, "", log_fault);

    if (options == NULL)
        return;
    for (int i = 0; i < TELEMETRY_SIGNALS; i++) {
        char *host = options->endpoints[i].url != NULL ? http_url_host(options->endpoints[i].url) : NULL;

        if (host != NULL)
            log_info("telemetry: %s go to %s", telemetry_signal_name((enum telemetry_signal)i), host);
        free(host);
    }
    telemetry_options_free(options);
}
