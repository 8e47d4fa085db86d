/*
 * GET /metrics (http-api.md section 11): the Prometheus text format, version 0.0.4, of all workers together. A series
 * with a label from outside appears with its first count.
 */
#include "common/metrics.h"
#include "common/run_table.h"
#include "worker/routes.h"
#include "worker/run.h"
#include "worker/status_report.h"
#include "worker/utf8.h"

#include <inttypes.h>

#define CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define REPLACEMENT  "\xef\xbf\xbd" /* U+FFFD: a scraper refuses the whole answer for one bad byte */
#define MICRO        1000000u

/* One row of a family, on its way out. */
struct series {
    struct evbuffer *out;
    const struct metric_family *family;
    char value[METRICS_LABEL_MAX_BYTES]; /* of its label */
    size_t length;
};

static void put_head(struct evbuffer *out, const char *name, const char *help, const char *type)
{
    evbuffer_add_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_escaped(struct evbuffer *out, const char *value, size_t length)
{
    while (length > 0) {
        size_t piece = utf8_sequence(value, length);

        if (piece == 0)
            evbuffer_add(out, REPLACEMENT, sizeof REPLACEMENT - 1);
        else if (*value == '\n')
            evbuffer_add(out, "\\n", 2);
        else if (*value == '"' || *value == '\\')
            evbuffer_add_printf(out, "\\%c", *value);
        else
            evbuffer_add(out, value, piece);
        piece += piece == 0;
        value += piece;
        length -= piece;
    }
}

/* The name with its suffix, and up to two labels: the family's, and one more (extra_name NULL: none). */
static void put_series(const struct series *series, const char *suffix, const char *extra_name, const char *extra)
{
    enum metric_label label = series->family->label;

    evbuffer_add_printf(series->out, "%s%s", series->family->name, suffix);
    if (label == METRIC_LABEL_NONE && extra_name == NULL)
        return;
    evbuffer_add(series->out, "{", 1);
    if (label != METRIC_LABEL_NONE) {
        evbuffer_add_printf(series->out, "%s=\"", metrics_label_name(label));
        put_escaped(series->out, series->value, series->length);
        evbuffer_add_printf(series->out, extra_name != NULL ? "\"," : "\"");
    }
    if (extra_name != NULL)
        evbuffer_add_printf(series->out, "%s=\"%s\"", extra_name, extra);
    evbuffer_add(series->out, "}", 1);
}

static void put_number(struct evbuffer *out, uint64_t number)
{
    evbuffer_add_printf(out, " %" PRIu64 "\n", number);
}

/* Counted in millionths, shown as what they are millionths of. */
static void put_micros(struct evbuffer *out, uint64_t micros)
{
    evbuffer_add_printf(out, " %" PRIu64 ".%06" PRIu64 "\n", micros / MICRO, micros % MICRO);
}

/* --- counters and histograms ---------------------------------------------------------------------------- */

/* _count is what the buckets hold, so that it is never at odds with them. */
static void put_histogram(const struct series *series, const uint64_t *totals)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        count += totals[i];
        put_series(series, "_bucket", "le", metrics_bucket_bound(i));
        put_number(series->out, count);
    }
    put_series(series, "_sum", NULL, NULL);
    put_micros(series->out, totals[METRICS_BUCKETS]);
    put_series(series, "_count", NULL, NULL);
    put_number(series->out, count);
}

static void put_counter(const struct series *series, unsigned choice, uint64_t total)
{
    const struct metric_family *family = series->family;

    put_series(series, "", family->choice_name, family->choice_count > 0 ? family->choices[choice] : NULL);
    if (family->type == METRIC_MICRO_COUNTER)
        put_micros(series->out, total);
    else
        put_number(series->out, total);
}

static bool is_empty_histogram(const uint64_t *totals)
{
    for (unsigned i = 0; i < METRICS_BUCKETS; i++) {
        if (totals[i] > 0)
            return false;
    }
    return true;
}

static void put_row(const struct series *series, const uint64_t *totals)
{
    const struct metric_family *family = series->family;
    bool wants_zeros = family->label == METRIC_LABEL_NONE;

    if (family->type == METRIC_HISTOGRAM) {
        if (wants_zeros || !is_empty_histogram(totals))
            put_histogram(series, totals);
        return;
    }
    for (unsigned i = 0; i < (family->choice_count > 0 ? family->choice_count : 1); i++) {
        if (wants_zeros || totals[i] > 0)
            put_counter(series, i, totals[i]);
    }
}

static void put_family(struct evbuffer *out, const struct scoreboard *scoreboard, enum metric metric)
{
    struct series series = {.out = out, .family = metrics_family(metric)};
    uint64_t totals[METRICS_COLUMNS_MAX];

    put_head(out, series.family->name, series.family->help,
             series.family->type == METRIC_HISTOGRAM ? "histogram" : "counter");
    for (unsigned row = 0; row < METRICS_ROWS; row++) {
        if (!metrics_row(scoreboard, series.family->label, row, series.value, &series.length))
            continue;
        metrics_read(scoreboard, metric, row, totals);
        put_row(&series, totals);
    }
}

/* --- gauges ----------------------------------------------------------------------------------------------- */

static void put_gauge(struct evbuffer *out, const char *name, const char *help, uint64_t value)
{
    put_head(out, name, help, "gauge");
    evbuffer_add_printf(out, "%s %" PRIu64 "\n", name, value);
}

/* The workers by their state, and what they hold. */
static void put_workers(struct evbuffer *out, const struct scoreboard *scoreboard)
{
    unsigned states[WORKER_STATES] = {0}, workers = 0, connections = 0;

    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++) {
        const struct worker_slot *slot = &scoreboard->slots[i];
        enum worker_state state = (enum worker_state)atomic_load(&slot->state);

        if (state == WORKER_FREE || state >= WORKER_STATES)
            continue;
        states[state]++;
        workers++;
        connections += atomic_load(&slot->connections);
    }
    put_gauge(out, "sandstorm_workers", "Worker processes.", workers);
    put_head(out, "sandstorm_worker_state", "Worker processes by what they do.", "gauge");
    for (unsigned i = WORKER_FREE + 1; i < WORKER_STATES; i++)
        evbuffer_add_printf(out, "sandstorm_worker_state{state=\"%s\"} %u\n", worker_state_name(i), states[i]);
    put_gauge(out, "sandstorm_connections", "Open connections of clients.", connections);
}

static void put_gauges(struct evbuffer *out, const struct scoreboard *scoreboard)
{
    put_gauge(out, "sandstorm_runs_active", "Live runs.", atomic_load(&scoreboard->live_runs));
    put_gauge(out, "sandstorm_max_runs", "Most live runs; more are refused.", scoreboard->sizes.max_runs);
    put_gauge(out, "sandstorm_sandboxes_active", "Sandboxes created and not yet confirmed deleted.",
              run_table_count_sandboxes(scoreboard));
    put_gauge(out, "sandstorm_kill_queue", "Sandboxes whose deletion failed at least once and is tried again.",
              scoreboard_failed_kills(scoreboard));
    put_workers(out, scoreboard);
    put_head(out, "sandstorm_start_time_seconds", "When the instance started, in seconds since 1970.", "gauge");
    evbuffer_add_printf(out, "sandstorm_start_time_seconds");
    put_micros(out, (uint64_t)scoreboard->started_us);
    put_head(out, "sandstorm_build_info", "The version of the server.", "gauge");
    evbuffer_add_printf(out, "sandstorm_build_info{version=\"%s\"} 1\n", SANDSTORM_VERSION);
}

void route_metrics(struct exchange *exchange)
{
    const struct scoreboard *scoreboard = ((const struct route_context *)exchange->context)->host->scoreboard;
    struct evbuffer *out = evbuffer_new();

    if (out == NULL) {
        server_reply_internal(exchange, "out of memory");
        return;
    }
    for (unsigned metric = 0; metric < METRIC_COUNT; metric++)
        put_family(out, scoreboard, metric);
    put_gauges(out, scoreboard);
    server_reply_buffer(exchange, CONTENT_TYPE, out);
}
