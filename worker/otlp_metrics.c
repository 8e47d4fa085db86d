/*
 * The metrics of GET /metrics for OTLP, by the names OpenTelemetry's conventions would give them: sums and histograms
 * that count since the instance began, over all its workers.
 */
#include "common/metrics.h"
#include "common/run_table.h"
#include "worker/otlp.h"

#include "worker/json_text.h"
#include "worker/number_text.h"

#include <inttypes.h>
#include <string.h>

#define MICRO 1e6

static const struct {
    const char *name;
    const char *unit; /* UCUM */
} names[METRIC_COUNT] = {
    [METRIC_REQUESTS] = {"sandstorm.requests", "1"},
    [METRIC_REQUEST_DURATION] = {"sandstorm.request.duration", "s"},
    [METRIC_AGENT_EXECUTION] = {"sandstorm.agent.execution.duration", "s"},
    [METRIC_FIRST_EVENT] = {"sandstorm.first_event.duration", "s"},
    [METRIC_COST] = {"sandstorm.cost", "{USD}"},
    [METRIC_ERRORS] = {"sandstorm.errors", "1"},
    [METRIC_SANDBOX_CREATION] = {"sandstorm.sandbox.creation.duration", "s"},
    [METRIC_SANDBOX_CALLS] = {"sandstorm.sandbox.calls", "1"},
    [METRIC_SANDBOX_RETRIES] = {"sandstorm.sandbox.retries", "1"},
    [METRIC_LEAKS_REAPED] = {"sandstorm.leaks.reaped", "1"},
    [METRIC_EVENTS] = {"sandstorm.events", "1"},
    [METRIC_STREAM_BYTES] = {"sandstorm.stream.size", "By"},
    [METRIC_PAUSES] = {"sandstorm.backpressure.pauses", "1"},
    [METRIC_ADMISSION_REJECTED] = {"sandstorm.admission.rejected", "1"},
    [METRIC_QUEUE_DROPS] = {"sandstorm.queue.drops", "1"},
    [METRIC_WEBHOOK_EVENTS] = {"sandstorm.webhook.events", "1"},
    [METRIC_TRIGGER_SKIPPED] = {"sandstorm.trigger.skipped", "1"},
    [METRIC_TELEMETRY_DROPPED] = {"sandstorm.telemetry.dropped", "1"},
};

/* A request while it is written. */
struct writing {
    struct evbuffer *out;
    const struct scoreboard *scoreboard;
    int64_t now_us;
    size_t series;  /* so far */
    size_t metrics; /* so far */
    bool failed;
};

static void put(struct writing *writing, const char *text)
{
    writing->failed = evbuffer_add(writing->out, text, strlen(text)) < 0 || writing->failed;
}

static void put_number(struct writing *writing, uint64_t number)
{
    writing->failed = evbuffer_add_printf(writing->out, "\"%" PRIu64 "\"", number) < 0 || writing->failed;
}

static void put_real(struct writing *writing, double real)
{
    char text[NUMBER_TEXT_BYTES];

    put(writing, number_text(real, text));
}

/* --- a metric and its series ------------------------------------------------------------------------------- */

static void begin_metric(struct writing *writing, const char *name, const char *help, const char *unit,
                         const char *kind)
{
    put(writing, writing->metrics++ > 0 ? ",{\"name\":\"" : "{\"name\":\"");
    put(writing, name);
    put(writing, "\",\"description\":");
    writing->failed = !json_text_write_string(writing->out, help, strlen(help)) || writing->failed;
    put(writing, ",\"unit\":\"");
    put(writing, unit);
    put(writing, "\",\"");
    put(writing, kind);
    put(writing, "\":{\"dataPoints\":[");
}

/* more: what else the kind wants to say, with its comma. */
static void end_metric(struct writing *writing, const char *more)
{
    put(writing, "]");
    put(writing, more);
    put(writing, "}}");
}

/* Attributes and times of a series; what it counted follows. */
static void begin_series(struct writing *writing, const struct otlp_attribute *attributes, size_t count, bool is_first)
{
    put(writing, is_first ? "{" : ",{");
    writing->failed = !otlp_write_attributes(writing->out, attributes, count) || writing->failed;
    writing->failed =
        evbuffer_add_printf(writing->out,
                            ",\"startTimeUnixNano\":\"%" PRId64 "000\",\"timeUnixNano\":\"%" PRId64 "000\",",
                            writing->scoreboard->started_us, writing->now_us) < 0 ||
        writing->failed;
    writing->series++;
}

/* --- counters and histograms ------------------------------------------------------------------------------- */

static void put_histogram(struct writing *writing, const uint64_t *totals)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < METRICS_BUCKETS; i++)
        count += totals[i];
    put(writing, "\"count\":");
    put_number(writing, count);
    put(writing, ",\"sum\":");
    put_real(writing, (double)totals[METRICS_BUCKETS] / MICRO);
    put(writing, ",\"bucketCounts\":[");
    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        put(writing, i > 0 ? "," : "");
        put_number(writing, totals[i]);
    }
    put(writing, "],\"explicitBounds\":[");
    for (unsigned i = 0; i < METRICS_BUCKETS - 1; i++) {
        put(writing, i > 0 ? "," : "");
        put(writing, metrics_bucket_bound(i));
    }
    put(writing, "]}");
}

static void put_counter(struct writing *writing, enum metric_type type, uint64_t total)
{
    if (type == METRIC_MICRO_COUNTER) {
        put(writing, "\"asDouble\":");
        put_real(writing, (double)total / MICRO);
    } else {
        put(writing, "\"asInt\":");
        put_number(writing, total);
    }
    put(writing, "}");
}

static bool has_counted(const uint64_t *totals, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (totals[i] > 0)
            return true;
    }
    return false;
}

/* One row of a family: a series for each choice that has counted. value: of the label from outside, if it has one. */
static void put_row(struct writing *writing, const struct metric_family *family, const char *value,
                    const uint64_t *totals, bool *is_first)
{
    struct otlp_attribute attributes[2];
    size_t count = 0;
    unsigned choices = family->choice_count > 0 ? family->choice_count : 1;

    if (family->label != METRIC_LABEL_NONE)
        attributes[count++] =
            (struct otlp_attribute){metrics_label_name(family->label), OTLP_STRING, {.string = value}};
    if (family->type == METRIC_HISTOGRAM) {
        if (!has_counted(totals, METRICS_BUCKETS))
            return;
        begin_series(writing, attributes, count, *is_first);
        put_histogram(writing, totals);
        *is_first = false;
        return;
    }
    for (unsigned i = 0; i < choices; i++) {
        if (totals[i] == 0)
            continue;
        if (family->choice_count > 0)
            attributes[count] =
                (struct otlp_attribute){family->choice_name, OTLP_STRING, {.string = family->choices[i]}};
        begin_series(writing, attributes, count + (family->choice_count > 0), *is_first);
        put_counter(writing, family->type, totals[i]);
        *is_first = false;
    }
}

/* Begun with its first series: a metric without any is not valid. */
static void put_family(struct writing *writing, enum metric metric)
{
    const struct metric_family *family = metrics_family(metric);
    uint64_t totals[METRICS_COLUMNS_MAX];
    char value[METRICS_LABEL_MAX_BYTES + 1];
    bool is_first = true;
    size_t length;

    for (unsigned row = 0; row < METRICS_ROWS; row++) {
        if (!metrics_row(writing->scoreboard, family->label, row, value, &length))
            continue;
        value[length] = '\0';
        metrics_read(writing->scoreboard, metric, row, totals);
        if (is_first && has_counted(totals, family->type == METRIC_HISTOGRAM ? METRICS_BUCKETS : METRICS_COLUMNS_MAX))
            begin_metric(writing, names[metric].name, family->help, names[metric].unit,
                         family->type == METRIC_HISTOGRAM ? "histogram" : "sum");
        put_row(writing, family, value, totals, &is_first);
    }
    if (!is_first && family->type == METRIC_HISTOGRAM)
        end_metric(writing, ",\"aggregationTemporality\":2");
    else if (!is_first)
        end_metric(writing, ",\"aggregationTemporality\":2,\"isMonotonic\":true");
}

/* --- gauges ------------------------------------------------------------------------------------------------ */

static unsigned count_connections(const struct scoreboard *scoreboard)
{
    unsigned connections = 0;

    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++) {
        const struct worker_slot *slot = &scoreboard->slots[i];

        if (atomic_load(&slot->state) != WORKER_FREE)
            connections += atomic_load(&slot->connections);
    }
    return connections;
}

static unsigned count_workers(const struct scoreboard *scoreboard)
{
    unsigned workers = 0;

    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++)
        workers += atomic_load(&scoreboard->slots[i].state) != WORKER_FREE;
    return workers;
}

static void put_gauges(struct writing *writing)
{
    const struct scoreboard *scoreboard = writing->scoreboard;
    const struct {
        const char *name, *help;
        uint64_t value;
    } gauges[] = {
        {"sandstorm.runs.active", "Live runs.", atomic_load(&scoreboard->live_runs)},
        {"sandstorm.runs.max", "Most live runs; more are refused.", scoreboard->sizes.max_runs},
        {"sandstorm.sandboxes.active", "Sandboxes created and not yet confirmed deleted.",
         run_table_count_sandboxes(scoreboard)},
        {"sandstorm.kill_queue", "Sandboxes whose deletion failed at least once and is tried again.",
         scoreboard_failed_kills(scoreboard)},
        {"sandstorm.workers", "Worker processes.", count_workers(scoreboard)},
        {"sandstorm.connections", "Open connections of clients.", count_connections(scoreboard)},
    };

    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        begin_metric(writing, gauges[i].name, gauges[i].help, "1", "gauge");
        begin_series(writing, NULL, 0, true);
        put_counter(writing, METRIC_COUNTER, gauges[i].value);
        end_metric(writing, "");
    }
}

bool otlp_write_metrics(struct evbuffer *out, const struct scoreboard *scoreboard, int64_t now_us, size_t *count)
{
    struct writing writing = {.out = out, .scoreboard = scoreboard, .now_us = now_us};

    for (unsigned metric = 0; metric < METRIC_COUNT; metric++)
        put_family(&writing, (enum metric)metric);
    put_gauges(&writing);
    *count = writing.series;
    return !writing.failed;
}
