/*
 * What leads to telemetry and what becomes of it: a caller's headers, the environment's variables, the sampler, the
 * JSON of spans and metrics, and a collector that does not answer, with the HTTP client replaced.
 */
#include "tests/unit/replaced_http.h"

#include "common/metrics.h"
#include "worker/telemetry.h"

#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <sys/queue.h>

#define TRACE  "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

/* --- traceparent ------------------------------------------------------------------------------------------- */

static void test_only_a_good_traceparent_counts(void **state)
{
    static const struct {
        const char *value;
        bool good, sampled;
    } table[] = {
        {"00-" TRACE "-" PARENT "-01", true, true},
        {" 00-" TRACE "-" PARENT "-00\t", true, false},
        {"00-" TRACE "-" PARENT "-ff", true, true},
        {"00-" TRACE "-" PARENT "-02", true, false},
        {"01-" TRACE "-" PARENT "-01-and more", true, true},
        {"01-" TRACE "-" PARENT "-01", true, true},
        {"00-" TRACE "-" PARENT "-01-and more", false, false},
        {"01-" TRACE "-" PARENT "-01and more", false, false},
        {"ff-" TRACE "-" PARENT "-01", false, false},
        {"00-00000000000000000000000000000000-" PARENT "-01", false, false},
        {"00-" TRACE "-0000000000000000-01", false, false},
        {"00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01", false, false},
        {"00-" TRACE "-" PARENT "-0g", false, false},
        {"0x-" TRACE "-" PARENT "-01", false, false},
        {"00_" TRACE "_" PARENT "_01", false, false},
        {"00-" TRACE "-" PARENT "-1", false, false},
        {"00-" TRACE "-" PARENT, false, false},
        {"", false, false},
    };
    char out[TRACE_PARENT_CHARS + 1];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct trace_context context;

        if (trace_context_parse(&context, table[i].value) != table[i].good || context.is_valid != table[i].good)
            fail_msg("\"%s\" is taken for %s", table[i].value, table[i].good ? "bad" : "good");
        if (!table[i].good)
            continue;
        assert_int_equal(context.is_sampled, table[i].sampled);
        trace_context_format(&context, out);
        assert_string_equal(out, table[i].sampled ? "00-" TRACE "-" PARENT "-01" : "00-" TRACE "-" PARENT "-00");
    }
}

/* Reads headers of a request, two of each list. */
static struct trace_context read_headers(const char *const names[], const char *const values[], size_t count)
{
    struct trace_context context;
    struct evkeyvalq headers;

    TAILQ_INIT(&headers);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(evhttp_add_header(&headers, names[i], values[i]), 0);
    trace_context_read(&context, &headers);
    evhttp_clear_headers(&headers);
    return context;
}

static void test_a_tracestate_goes_with_its_traceparent(void **state)
{
    static const char good[] = "00-" TRACE "-" PARENT "-01";
    char big[TRACE_STATE_MAX_BYTES + 2];
    struct trace_context context;

    (void)state;
    context = read_headers((const char *[]){"TraceParent", "tracestate", "TRACESTATE"},
                           (const char *[]){good, " a=1 ", "b=2"}, 3);
    assert_true(context.is_valid);
    assert_string_equal(context.state, "a=1,b=2");
    context = read_headers((const char *[]){"tracestate"}, (const char *[]){"a=1"}, 1);
    assert_false(context.is_valid);
    assert_string_equal(context.state, "");
    context = read_headers((const char *[]){"traceparent", "traceparent", "tracestate"},
                           (const char *[]){good, good, "a=1"}, 3);
    assert_false(context.is_valid);
    context = read_headers((const char *[]){"traceparent", "tracestate"}, (const char *[]){good, "a=\xc3\xa9"}, 2);
    assert_true(context.is_valid);
    assert_string_equal(context.state, "");
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    context = read_headers((const char *[]){"traceparent", "tracestate"}, (const char *[]){good, big}, 2);
    assert_string_equal(context.state, "");
    big[TRACE_STATE_MAX_BYTES] = '\0';
    context = read_headers((const char *[]){"traceparent", "tracestate"}, (const char *[]){good, big}, 2);
    assert_string_equal(context.state, big);
}

/* --- options ----------------------------------------------------------------------------------------------- */

static char faults[512]; /* the variables that were told of, one after the other */

static void on_fault(const char *variable, const char *reason)
{
    size_t used = strlen(faults);

    assert_true(strlen(reason) > 10);
    snprintf(faults + used, sizeof faults - used, "%s ", variable);
}

/* The options of an environment of these variables alone: name, value, …, NULL. */
static struct telemetry_options *options_of(const char *const *variables)
{
    struct environment_file *file = environment_file_new("/proc/self/fdinfo");
    struct environment *environment = environment_current(file);
    struct telemetry_options *options;

    faults[0] = '\0';
    for (const char *const *at = variables; *at != NULL; at += 2)
        setenv(at[0], at[1], 1);
    options = telemetry_options_read(environment, "unit", on_fault);
    for (const char *const *at = variables; *at != NULL; at += 2)
        unsetenv(at[0]);
    environment_unref(environment);
    environment_file_free(file);
    return options;
}

#define OPTIONS(...) options_of((const char *const[]){__VA_ARGS__, NULL})

static void test_it_is_on_when_it_is_asked_for(void **state)
{
    static const struct {
        const char *wanted, *endpoint, *disabled;
        bool on;
    } table[] = {
        {"1", "", "", true},          {"TRUE", "", "", true},     {"yes", "", "false", true},
        {"on", "", "", true},         {"", "http://c", "", true}, {"maybe", "http://c", "", true},
        {"1", "http://c", "1", true}, {"", "", "", false},        {"0", "http://c", "", false},
        {"off", "", "", false},       {"maybe", "", "", false},   {"1", "http://c", "True", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct telemetry_options *options =
            OPTIONS("SANDSTORM_TELEMETRY", table[i].wanted, "OTEL_EXPORTER_OTLP_ENDPOINT", table[i].endpoint,
                    "OTEL_SDK_DISABLED", table[i].disabled);

        if ((options != NULL) != table[i].on)
            fail_msg("row %zu", i);
        assert_string_equal(faults, strcmp(table[i].wanted, "maybe") == 0 ? "SANDSTORM_TELEMETRY " : "");
        telemetry_options_free(options);
    }
}

static void test_what_is_not_said_is_as_the_specification_has_it(void **state)
{
    struct telemetry_options *options = OPTIONS("SANDSTORM_TELEMETRY", "1");

    (void)state;
    assert_string_equal(options->endpoints[TELEMETRY_TRACES].url, "http://localhost:4318/v1/traces");
    assert_string_equal(options->endpoints[TELEMETRY_METRICS].url, "http://localhost:4318/v1/metrics");
    assert_null(options->endpoints[TELEMETRY_TRACES].headers);
    assert_int_equal(options->endpoints[TELEMETRY_TRACES].timeout_ms, 10000);
    assert_int_equal(options->metric_interval_ms, 60000);
    assert_int_equal(options->span_delay_ms, 5000);
    assert_int_equal(options->span_queue_max, 2048);
    assert_int_equal(options->span_batch_max, 512);
    assert_true(options->sampler.is_parent_based && options->sampler.takes_all);
    assert_string_equal(options->ca_file, "");
    assert_string_equal(options->resource,
                        "{\"attributes\":[{\"key\":\"service.name\",\"value\":{\"stringValue\":\"sandstorm\"}},"
                        "{\"key\":\"service.version\",\"value\":{\"stringValue\":\"" SANDSTORM_VERSION "\"}},"
                        "{\"key\":\"service.instance.id\",\"value\":{\"stringValue\":\"unit\"}}]}");
    telemetry_options_free(options);
}

static void test_a_signals_own_variables_are_stronger(void **state)
{
    struct telemetry_options *options =
        OPTIONS("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1/base//", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                "http://d/m", "OTEL_EXPORTER_OTLP_HEADERS", "a=1%2C2, b = c d ,", "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
                "x=y", "OTEL_EXPORTER_OTLP_TIMEOUT", "7", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "8");
    const struct telemetry_endpoint *traces = &options->endpoints[TELEMETRY_TRACES];
    const struct telemetry_endpoint *metrics = &options->endpoints[TELEMETRY_METRICS];

    (void)state;
    assert_string_equal(traces->url, "https://c:1/base/v1/traces");
    assert_string_equal(metrics->url, "http://d/m");
    assert_int_equal(traces->timeout_ms, 8);
    assert_int_equal(metrics->timeout_ms, 7);
    assert_string_equal(traces->headers->data, "1,2"); /* the replaced client keeps values alone */
    assert_string_equal(traces->headers->next->data, "c d");
    assert_null(traces->headers->next->next);
    assert_string_equal(metrics->headers->data, "y");
    assert_string_equal(faults, "");
    telemetry_options_free(options);
    options = OPTIONS("SANDSTORM_TELEMETRY", "1", "OTEL_TRACES_EXPORTER", "none");
    assert_null(options->endpoints[TELEMETRY_TRACES].url);
    assert_non_null(options->endpoints[TELEMETRY_METRICS].url);
    telemetry_options_free(options);
}

static void test_what_cannot_be_used_is_told_and_left_out(void **state)
{
    static const struct {
        const char *name, *value;
    } table[] = {
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "ftp://x"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "no URL"},
        {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a"},
        {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a b=c"},
        {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "=c"},
        {"OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=%00"},
        {"OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "soon"},
        {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"},
        {"OTEL_METRICS_EXPORTER", "prometheus"},
        {"OTEL_METRIC_EXPORT_INTERVAL", "99"},
        {"OTEL_BSP_SCHEDULE_DELAY", "0"},
        {"OTEL_BSP_MAX_QUEUE_SIZE", "65537"},
        {"OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1x"},
        {"OTEL_TRACES_SAMPLER", "jaeger_remote"},
        {"OTEL_RESOURCE_ATTRIBUTES", "a=1,b"},
        {"OTEL_RESOURCE_ATTRIBUTES", "a=%ff"},
        {"OTEL_SERVICE_NAME", "\xff"},
    };
    char expected[64];

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct telemetry_options *options = OPTIONS("SANDSTORM_TELEMETRY", "1", table[i].name, table[i].value);

        snprintf(expected, sizeof expected, "%s ", table[i].name);
        assert_non_null(options);
        assert_string_equal(faults, expected);
        assert_null(strstr(options->resource, "\"a\""));
        assert_non_null(strstr(options->resource, "\"sandstorm\""));
        assert_true(options->metric_interval_ms == 60000 && options->span_queue_max == 2048);
        telemetry_options_free(options);
    }
}

static void test_the_sampler_decides_by_its_caller_or_by_the_id(void **state)
{
    static const struct {
        const char *name, *argument;
        int caller;     /* -1: none; 0, 1: whether it samples */
        uint8_t middle; /* first byte of the id's lower half */
        bool takes;
    } table[] = {
        {"", "", -1, 0xff, true},
        {"", "", 0, 0, false},
        {"", "", 1, 0xff, true},
        {"always_on", "", 0, 0xff, true},
        {"always_off", "", 1, 0, false},
        {"ALWAYS_OFF", "", -1, 0, false},
        {"parentbased_always_off", "", -1, 0, false},
        {"parentbased_always_off", "", 1, 0, true},
        {"traceidratio", "0", 1, 0, false},
        {"traceidratio", "1", 0, 0xff, true},
        {"traceidratio", "", 0, 0xff, true},
        {"traceidratio", "0.25", -1, 0x3f, true},
        {"traceidratio", "0.25", 1, 0x40, false},
        {"parentbased_traceidratio", "0.25", -1, 0x40, false},
        {"parentbased_traceidratio", "0.25", 1, 0x40, true},
        {"parentbased_traceidratio", "0.25", 0, 0x3f, false},
        {"traceidratio", "nan", -1, 0xff, true},
        {"traceidratio", "-1", -1, 0xff, true},
        {"traceidratio", "1.5", -1, 0xff, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        struct telemetry_options *options = OPTIONS("SANDSTORM_TELEMETRY", "1", "OTEL_TRACES_SAMPLER", table[i].name,
                                                    "OTEL_TRACES_SAMPLER_ARG", table[i].argument);
        const struct trace_context caller = {.is_valid = table[i].caller >= 0, .is_sampled = table[i].caller == 1};
        uint8_t id[TRACE_ID_BYTES] = {[0] = 0xff, [8] = table[i].middle};

        if (telemetry_sampler_takes(&options->sampler, &caller, id) != table[i].takes)
            fail_msg("row %zu", i);
        telemetry_options_free(options);
    }
}

/* --- JSON -------------------------------------------------------------------------------------------------- */

static const struct trace_context place = {
    .is_valid = true, .trace_id = {1, [15] = 0xab}, .span_id = {2, [7] = 0xcd}, .is_sampled = true};

static void check_json(struct evbuffer *out, const char *expected)
{
    size_t length = evbuffer_get_length(out);

    assert_int_equal(evbuffer_add(out, "", 1), 0);
    assert_string_equal((const char *)evbuffer_pullup(out, -1), expected);
    evbuffer_drain(out, length + 1);
}

static void test_spans_are_written_as_the_protocol_has_them(void **state)
{
    const struct otlp_attribute attributes[] = {
        {"s", OTLP_STRING, {.string = "a\"\xff"}},
        {"i", OTLP_INTEGER, {.integer = INT64_MIN}},
        {"r", OTLP_REAL, {.real = 0.1}},
        {"b", OTLP_BOOLEAN, {.boolean = true}},
    };
    struct otlp_span span = {.name = "query", .kind = OTLP_KIND_SERVER, .context = &place, .start_us = 1, .end_us = 22};
    struct trace_context child = place;
    struct evbuffer *out = evbuffer_new();

    (void)state;
    assert_true(otlp_write_span(out, &span));
    check_json(out, "{\"traceId\":\"010000000000000000000000000000ab\",\"spanId\":\"02000000000000cd\",\"flags\":257,"
                    "\"name\":\"query\",\"kind\":2,\"startTimeUnixNano\":\"1000\",\"endTimeUnixNano\":\"22000\","
                    "\"attributes\":[]}");
    snprintf(child.state, sizeof child.state, "a=\"");
    span = (struct otlp_span){.name = "x",
                              .kind = OTLP_KIND_CLIENT,
                              .context = &child,
                              .parent_id = place.span_id,
                              .has_remote_parent = true,
                              .start_us = 1,
                              .end_us = 2,
                              .attributes = attributes,
                              .attribute_count = COUNT(attributes),
                              .error = "e2b_auth",
                              .error_message = "no"};
    assert_true(otlp_write_span(out, &span));
    check_json(out, "{\"traceId\":\"010000000000000000000000000000ab\",\"spanId\":\"02000000000000cd\",\"flags\":769,"
                    "\"traceState\":\"a=\\\"\",\"parentSpanId\":\"02000000000000cd\",\"name\":\"x\",\"kind\":3,"
                    "\"startTimeUnixNano\":\"1000\",\"endTimeUnixNano\":\"2000\",\"attributes\":["
                    "{\"key\":\"s\",\"value\":{\"stringValue\":\"a\\\"\xef\xbf\xbd\"}},"
                    "{\"key\":\"i\",\"value\":{\"intValue\":\"-9223372036854775808\"}},"
                    "{\"key\":\"r\",\"value\":{\"doubleValue\":0.1}},{\"key\":\"b\",\"value\":{\"boolValue\":true}}],"
                    "\"events\":[{\"timeUnixNano\":\"2000\",\"name\":\"exception\",\"attributes\":["
                    "{\"key\":\"exception.type\",\"value\":{\"stringValue\":\"e2b_auth\"}},"
                    "{\"key\":\"exception.message\",\"value\":{\"stringValue\":\"no\"}}]}],"
                    "\"status\":{\"code\":2,\"message\":\"no\"}}");
    evbuffer_free(out);
}

static void test_a_text_is_cut_between_characters(void **state)
{
    char text[2 * OTLP_TEXT_MAX_BYTES] = "";
    struct otlp_span span = {.name = text, .kind = OTLP_KIND_CLIENT, .context = &place};
    struct evbuffer *out = evbuffer_new();
    json_t *root;

    (void)state;
    strcpy(text, "x");
    for (int i = 0; i < OTLP_TEXT_MAX_BYTES / 2; i++)
        strcat(text, "\xc3\xa9");
    assert_true(otlp_write_span(out, &span));
    root = json_loadb((const char *)evbuffer_pullup(out, -1), evbuffer_get_length(out), 0, NULL);
    assert_int_equal(json_string_length(json_object_get(root, "name")), OTLP_TEXT_MAX_BYTES - 1);
    json_decref(root);
    evbuffer_free(out);
}

/* --- the exporter ------------------------------------------------------------------------------------------ */

static struct world {
    struct event_base *base;
    struct scoreboard *scoreboard;
    struct telemetry *telemetry;
    int flushed;
} world;

static void on_flushed(void *context)
{
    (void)context;
    world.flushed++;
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    memset(&http, 0, sizeof http);
    world.base = event_base_new();
    world.scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 4, .run_history = 4}, NULL);
    atomic_store(&world.scoreboard->slots_end, 1);
    metrics_open(world.scoreboard, 0);
    world.telemetry = telemetry_new(
        OPTIONS("SANDSTORM_TELEMETRY", "1", "OTEL_BSP_MAX_QUEUE_SIZE", "5", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "3",
                "OTEL_BSP_SCHEDULE_DELAY", "1"),
        &(struct telemetry_context){.base = world.base, .scoreboard = world.scoreboard, .on_flushed = on_flushed});
    assert_non_null(world.telemetry);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    telemetry_free(world.telemetry);
    metrics_open(NULL, 0);
    scoreboard_free(world.scoreboard);
    event_base_free(world.base);
    return 0;
}

static void add_spans(int count)
{
    for (int i = 0; i < count; i++)
        telemetry_add(world.telemetry, &(struct otlp_span){.name = "x", .kind = OTLP_KIND_CLIENT, .context = &place});
}

/* How many entries the last request has. */
static size_t sent_entries(const char *groups, const char *scopes, const char *entries)
{
    json_t *root = json_loadb(http.request.body, http.request.body_length, 0, NULL);
    json_t *group = json_array_get(json_object_get(root, groups), 0);
    json_t *scope = json_array_get(json_object_get(group, scopes), 0);
    size_t count = json_array_size(json_object_get(scope, entries));

    assert_non_null(json_object_get(group, "resource"));
    json_decref(root);
    return count;
}

static size_t sent_spans(void)
{
    assert_string_equal(http.url, "http://localhost:4318/v1/traces");
    return sent_entries("resourceSpans", "scopeSpans", "spans");
}

static void answer(enum transfer_outcome outcome, int status, const char *body)
{
    http.request.on_done(http.request.context, &(struct http_answer){.outcome = outcome,
                                                                     .status = status,
                                                                     .retry_after_s = -1,
                                                                     .body = body,
                                                                     .body_length = strlen(body),
                                                                     .error = "none"});
}

static uint64_t dropped(enum metric_telemetry signal)
{
    return metrics_total(world.scoreboard, METRIC_TELEMETRY_DROPPED, signal);
}

static void test_spans_go_in_batches_one_request_at_a_time(void **state)
{
    (void)state;
    add_spans(2);
    assert_int_equal(http.sent, 0);
    add_spans(1);
    assert_int_equal(http.sent, 1);
    assert_int_equal(sent_spans(), 3);
    add_spans(7); /* 5 find room */
    assert_int_equal(http.sent, 1);
    assert_int_equal(dropped(METRIC_TELEMETRY_TRACES), 2);
    answer(TRANSFER_ANSWERED, 200, "{}");
    assert_int_equal(http.sent, 2);
    assert_int_equal(sent_spans(), 3);
    answer(TRANSFER_ANSWERED, 200, "");
    assert_int_equal(http.sent, 2); /* two wait for others, and no longer than they have to */
    event_base_loop(world.base, EVLOOP_ONCE);
    assert_int_equal(http.sent, 3);
    assert_int_equal(sent_spans(), 2);
    answer(TRANSFER_ANSWERED, 200, "{\"partialSuccess\":{\"rejectedSpans\":\"1\"}}");
    assert_int_equal(dropped(METRIC_TELEMETRY_TRACES), 3);
}

static void test_only_what_may_pass_by_is_tried_again(void **state)
{
    static const struct {
        enum transfer_outcome outcome;
        int status;
        bool again;
    } table[] = {
        {TRANSFER_ANSWERED, 429, true},
        {TRANSFER_ANSWERED, 502, true},
        {TRANSFER_ANSWERED, 503, true},
        {TRANSFER_ANSWERED, 504, true},
        {TRANSFER_ANSWERED, 500, false},
        {TRANSFER_ANSWERED, 400, false},
        {TRANSFER_ANSWERED, 401, false},
        {TRANSFER_ANSWERED, 302, false},
        {TRANSFER_NOT_CONNECTED, 0, true},
        {TRANSFER_TIMED_OUT, 0, true},
        {TRANSFER_CUT, 0, true},
        {TRANSFER_TLS_FAILED, 0, true},
        {TRANSFER_TLS_UNTRUSTED, 0, false},
        {TRANSFER_ANSWER_TOO_LARGE, 200, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(table); i++) {
        uint64_t before = dropped(METRIC_TELEMETRY_TRACES);

        add_spans(3);
        answer(table[i].outcome, table[i].status, "");
        if (dropped(METRIC_TELEMETRY_TRACES) != before + (table[i].again ? 0 : 3))
            fail_msg("outcome %d, status %d", (int)table[i].outcome, table[i].status);
        if (!table[i].again)
            continue;
        /* A worker that leaves tries it once more, and no more. */
        assert_false(telemetry_flush(world.telemetry));
        event_base_loop(world.base, EVLOOP_ONCE);
        answer(table[i].outcome, table[i].status, "");
        assert_int_equal(dropped(METRIC_TELEMETRY_TRACES), before + 3);
        assert_true(telemetry_flush(world.telemetry));
        tear_down(NULL);
        set_up(NULL);
    }
}

static void test_a_leaving_worker_sends_what_it_has_with_the_last_metrics(void **state)
{
    struct http_request traces;

    (void)state;
    telemetry_elect(world.telemetry);
    add_spans(1);
    assert_false(telemetry_flush(world.telemetry));
    assert_int_equal(http.sent, 2);
    assert_int_equal(sent_spans(), 1);
    traces = http.request;
    assert_false(telemetry_flush(world.telemetry));
    traces.on_done(traces.context, &(struct http_answer){.outcome = TRANSFER_NOT_CONNECTED, .body = "", .error = "e"});
    assert_int_equal(dropped(METRIC_TELEMETRY_TRACES), 1);
    assert_int_equal(world.flushed, 0); /* the metrics are under way */
    assert_false(telemetry_flush(world.telemetry));
}

static void test_metrics_are_sent_by_who_was_chosen(void **state)
{
    (void)state;
    assert_true(telemetry_flush(world.telemetry));
    assert_int_equal(http.sent, 0);
    tear_down(NULL);
    set_up(NULL);
    metrics_count(METRIC_REQUESTS, "m", METRIC_OUTCOME_ERROR, 2);
    metrics_observe(METRIC_FIRST_EVENT, NULL, 300000);
    telemetry_elect(world.telemetry);
    assert_false(telemetry_flush(world.telemetry));
    assert_string_equal(http.url, "http://localhost:4318/v1/metrics");
    assert_int_equal(sent_entries("resourceMetrics", "scopeMetrics", "metrics"), 2 + 6);
    answer(TRANSFER_ANSWERED, 200, "{}");
    assert_int_equal(world.flushed, 1);
    assert_true(telemetry_flush(world.telemetry));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_a_good_traceparent_counts),
        cmocka_unit_test(test_a_tracestate_goes_with_its_traceparent),
        cmocka_unit_test(test_it_is_on_when_it_is_asked_for),
        cmocka_unit_test(test_what_is_not_said_is_as_the_specification_has_it),
        cmocka_unit_test(test_a_signals_own_variables_are_stronger),
        cmocka_unit_test(test_what_cannot_be_used_is_told_and_left_out),
        cmocka_unit_test(test_the_sampler_decides_by_its_caller_or_by_the_id),
        cmocka_unit_test(test_spans_are_written_as_the_protocol_has_them),
        cmocka_unit_test(test_a_text_is_cut_between_characters),
        cmocka_unit_test_setup_teardown(test_spans_go_in_batches_one_request_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_only_what_may_pass_by_is_tried_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_leaving_worker_sends_what_it_has_with_the_last_metrics, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_metrics_are_sent_by_who_was_chosen, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
