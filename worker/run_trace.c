#include "worker/run_trace.h"

#include "common/clock.h"
#include "common/log.h"
#include "worker/run_internal.h"
#include "worker/telemetry.h"
#include "worker/trace_span.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ATTRIBUTES_MAX 10

struct run_trace {
    struct trace_context query; /* the span's own place; its trace may be one that is not sent */
    uint8_t parent_id[SPAN_ID_BYTES];
    bool has_parent;
    uint8_t execute_id[SPAN_ID_BYTES]; /* known from the start: the sandbox is told before the agent starts */
    const char *trigger;
    int64_t start_us;
    enum run_stage stage;
    int64_t stage_us;     /* its start */
    int64_t upload_files; /* those of the upload, known when it begins */
    int64_t upload_bytes;
    bool has_skills;
};

static const struct {
    const char *name;
    enum otlp_span_kind kind;
} stages[RUN_STAGE_COUNT] = {
    [RUN_STAGE_CREATE] = {"sandbox.create", OTLP_KIND_CLIENT},
    [RUN_STAGE_UPLOAD] = {"sandbox.upload", OTLP_KIND_CLIENT},
    [RUN_STAGE_INSTALL] = {"sandbox.install", OTLP_KIND_CLIENT},
    [RUN_STAGE_EXECUTE] = {"agent.execute", OTLP_KIND_CLIENT},
    [RUN_STAGE_COLLECT] = {"sandbox.collect", OTLP_KIND_CLIENT},
};

/* --- attributes -------------------------------------------------------------------------------------------- */

struct attribute_list {
    struct otlp_attribute items[ATTRIBUTES_MAX];
    size_t count;
};

static void add(struct attribute_list *list, struct otlp_attribute attribute)
{
    if (list->count == ATTRIBUTES_MAX)
        log_panic("run_trace: no room for attribute %s", attribute.key);
    list->items[list->count++] = attribute;
}

/* NULL: it is not there. */
static void add_string(struct attribute_list *list, const char *key, const char *value)
{
    if (value != NULL)
        add(list, (struct otlp_attribute){key, OTLP_STRING, {.string = value}});
}

static void add_integer(struct attribute_list *list, const char *key, int64_t value)
{
    add(list, (struct otlp_attribute){key, OTLP_INTEGER, {.integer = value}});
}

static void add_boolean(struct attribute_list *list, const char *key, bool value)
{
    add(list, (struct otlp_attribute){key, OTLP_BOOLEAN, {.boolean = value}});
}

static const char *sandbox_id(const struct run *run)
{
    return run->sandbox != NULL ? run->sandbox->id : NULL;
}

static void describe_query(const struct run *run, enum run_error error, struct attribute_list *list)
{
    const struct run_record *record = &run->entry.record;

    add_string(list, "sandstorm.request_id", run->id);
    add_string(list, "sandstorm.model", run->model != NULL ? run->model : "");
    add_integer(list, "sandstorm.timeout", run->timeout_s);
    add_integer(list, "sandstorm.file_count", record->files_count);
    add_string(list, "sandstorm.status", run_status_name((enum run_status)record->status));
    add_string(list, "sandstorm.error_code", error != RUN_ERROR_NONE ? run_error_code(error) : NULL);
    add_string(list, "sandstorm.sandbox_id", sandbox_id(run));
    add_string(list, "sandstorm.trigger", run->trace->trigger);
    if (record->num_turns >= 0)
        add_integer(list, "sandstorm.num_turns", record->num_turns);
    if (record->has_cost)
        add(list, (struct otlp_attribute){"sandstorm.cost_usd", OTLP_REAL, {.real = record->cost_usd}});
}

static void describe_stage(const struct run *run, struct attribute_list *list)
{
    const struct run_trace *trace = run->trace;

    switch (trace->stage) {
    case RUN_STAGE_CREATE:
        add_string(list, "sandstorm.template", run->host->settings->template_name);
        add_boolean(list, "sandstorm.template_fallback", run->is_fallback);
        break;
    case RUN_STAGE_UPLOAD:
        add_integer(list, "sandstorm.file_count", trace->upload_files);
        add_integer(list, "sandstorm.total_size_bytes", trace->upload_bytes);
        break;
    case RUN_STAGE_EXECUTE:
        add_string(list, "sandstorm.model", run->model != NULL ? run->model : "");
        add_boolean(list, "sandstorm.has_skills", trace->has_skills);
        if (run->entry.record.has_exit_code)
            add_integer(list, "sandstorm.exit_code", run->entry.record.exit_code);
        break;
    case RUN_STAGE_INSTALL:
    case RUN_STAGE_COLLECT:
        break;
    case RUN_STAGE_NONE:
    case RUN_STAGE_COUNT:
    default:
        log_panic("run %s: stage %d has no span", run->id, (int)trace->stage);
    }
    add_string(list, "sandstorm.sandbox_id", sandbox_id(run));
}

/* --- spans ------------------------------------------------------------------------------------------------- */

/* The code for a span; NULL: it went well, or somebody wanted it to end, which is no error. */
static const char *error_of(enum run_error error)
{
    switch (error) {
    case RUN_ERROR_NONE:
    case RUN_ERROR_CANCELLED:
    case RUN_ERROR_CLIENT_GONE:
        return NULL;
    default:
        return run_error_code(error);
    }
}

/* What the server says of it; an agent's own words stay out of traces. */
static const char *message_of(enum run_error error, const char *message)
{
    return error == RUN_ERROR_AGENT_ERROR || error == RUN_ERROR_AGENT_RESULT ? "" : message;
}

/* Clocks are set: a span that ended before it began would be refused. */
static int64_t end_us(int64_t start_us)
{
    int64_t now_us = realtime_us();

    return now_us > start_us ? now_us : start_us;
}

static void end_stage(const struct run *run, enum run_error error, const char *message)
{
    const struct run_trace *trace = run->trace;
    struct trace_context context = trace->query;
    struct attribute_list list = {.count = 0};

    if (trace->stage == RUN_STAGE_EXECUTE)
        memcpy(context.span_id, trace->execute_id, SPAN_ID_BYTES);
    else if (getrandom(context.span_id, SPAN_ID_BYTES, 0) != SPAN_ID_BYTES)
        return;
    describe_stage(run, &list);
    telemetry_add(run->host->telemetry, &(struct otlp_span){.name = stages[trace->stage].name,
                                                            .kind = stages[trace->stage].kind,
                                                            .context = &context,
                                                            .parent_id = trace->query.span_id,
                                                            .start_us = trace->stage_us,
                                                            .end_us = end_us(trace->stage_us),
                                                            .attributes = list.items,
                                                            .attribute_count = list.count,
                                                            .error = error_of(error),
                                                            .error_message = message_of(error, message)});
}

static void note_upload(const struct run *run, struct run_trace *trace)
{
    trace->upload_files = (int64_t)run->config.file_count;
    trace->has_skills = run->config.has_skills;
    trace->upload_bytes = 0;
    for (size_t i = 0; i < run->config.file_count; i++)
        trace->upload_bytes += (int64_t)run->config.files[i].length;
}

void run_trace_stage(struct run *run, enum run_stage next, enum run_error error, const char *message)
{
    struct run_trace *trace = run->trace;

    if (trace == NULL || !trace->query.is_sampled)
        return;
    if (trace->stage != RUN_STAGE_NONE)
        end_stage(run, error, message);
    trace->stage = next;
    trace->stage_us = realtime_us();
    if (next == RUN_STAGE_UPLOAD)
        note_upload(run, trace);
}

void run_trace_end(struct run *run, enum run_error error, const char *message)
{
    const struct run_trace *trace = run->trace;
    struct attribute_list list = {.count = 0};

    if (trace == NULL || !trace->query.is_sampled)
        return;
    run_trace_stage(run, RUN_STAGE_NONE, error, message);
    describe_query(run, error, &list);
    telemetry_add(run->host->telemetry, &(struct otlp_span){.name = "query",
                                                            .kind = OTLP_KIND_SERVER,
                                                            .context = &trace->query,
                                                            .parent_id = trace->has_parent ? trace->parent_id : NULL,
                                                            .has_remote_parent = trace->has_parent,
                                                            .start_us = trace->start_us,
                                                            .end_us = end_us(trace->start_us),
                                                            .attributes = list.items,
                                                            .attribute_count = list.count,
                                                            .error = error_of(error),
                                                            .error_message = message_of(error, message)});
}

struct trace_span *run_trace_cleanup(const struct run *run)
{
    if (run->trace == NULL || !run->trace->query.is_sampled)
        return NULL;
    return trace_span_begin(run->host->telemetry, &run->trace->query, "sandbox.cleanup");
}

/* --- the beginning ----------------------------------------------------------------------------------------- */

/* Ids that are all zero are not valid, and as likely as two that are the same. */
static bool draw_ids(struct run_trace *trace)
{
    return getrandom(trace->query.trace_id, TRACE_ID_BYTES, 0) == TRACE_ID_BYTES &&
           getrandom(trace->query.span_id, SPAN_ID_BYTES, 0) == SPAN_ID_BYTES &&
           getrandom(trace->execute_id, SPAN_ID_BYTES, 0) == SPAN_ID_BYTES;
}

static void follow(struct run_trace *trace, const struct trace_context *caller)
{
    trace->has_parent = true;
    memcpy(trace->parent_id, caller->span_id, SPAN_ID_BYTES);
    memcpy(trace->query.trace_id, caller->trace_id, TRACE_ID_BYTES);
    memcpy(trace->query.state, caller->state, sizeof caller->state);
}

/* Without memory or randomness a run goes on untraced. */
void run_trace_begin(struct run *run, const struct trace_context *caller, const char *trigger)
{
    struct run_trace *trace;

    if (run->host->telemetry == NULL || (trace = calloc(1, sizeof *trace)) == NULL)
        return;
    if (!draw_ids(trace)) {
        free(trace);
        return;
    }
    if (caller->is_valid)
        follow(trace, caller);
    trace->query.is_valid = true;
    trace->query.is_sampled =
        telemetry_sampler_takes(telemetry_sampler_of(run->host->telemetry), caller, trace->query.trace_id);
    trace->trigger = trigger;
    trace->start_us = realtime_us();
    run->trace = trace;
}

void run_trace_put_env(const struct run *run, json_t *env)
{
    struct trace_context context;
    char parent[TRACE_PARENT_CHARS + 1];

    if (run->trace == NULL)
        return;
    context = run->trace->query;
    memcpy(context.span_id, run->trace->execute_id, SPAN_ID_BYTES);
    trace_context_format(&context, parent);
    if (json_object_set_new(env, "TRACEPARENT", json_string(parent)) == 0 && *context.state != '\0')
        (void)json_object_set_new(env, "TRACESTATE", json_string(context.state));
}

void run_trace_free(struct run *run)
{
    free(run->trace);
    run->trace = NULL;
}
