#include "worker/creation.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/run.h"
#include "worker/trace_span.h"

#include <stdlib.h>
#include <string.h>

#define FALLBACK_TEMPLATE "claude-code"
#define TTL_MARGIN_S      60 /* room for collecting files after the agent's last second */
/* How the service words a refusal that a shorter time to live gets around. */
#define TOO_LONG_TEXT "Timeout cannot be greater"

struct creation {
    struct run_host *host;
    struct e2b_context e2b; /* with a reference of its own to the service */
    char run_id[RUN_ID_DIGITS + 1];
    struct creation_handlers handlers;
    struct e2b_call *call;
    json_t *env;
    int64_t timeout_s;
    int64_t ttl_s;
    int64_t began_ms;
    struct run_lease_name lease;
    struct trace_span *cleanup; /* of an abandoned one; NULL: none */
    bool is_fallback;
    bool abandoned;
    char first_message[E2B_MESSAGE_MAX_BYTES / 2]; /* why the fallback was needed */
};

static void creation_free(struct creation *creation)
{
    e2b_service_unref(creation->e2b.service);
    json_decref(creation->env);
    trace_span_free(creation->cleanup);
    free(creation);
}

static const char *template_of(const struct creation *creation)
{
    return creation->is_fallback ? FALLBACK_TEMPLATE : creation->host->settings->template_name;
}

/* A sandbox that may exist unknown is searched for, under the lease of a run that has no other. */
static void search(const struct creation *creation, const struct e2b_sandbox *sandbox, int64_t expires_ms)
{
    struct stray_order order = {.service = creation->e2b.service,
                                .run_id = creation->run_id,
                                .until_ms = monotonic_ms() + STRAY_SEARCH_MS,
                                .expires_ms = expires_ms};

    if (sandbox != NULL) {
        order.own_sandbox_id = sandbox->id;
    } else {
        order.lease = creation->lease;
        run_lease_creating(creation->host->scoreboard, creation->lease, order.until_ms);
    }
    stray_search_add(creation->host->strays, &order);
}

/* Ends it, once. */
static void end(struct creation *creation, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    struct run_host *host = creation->host;
    int64_t now_ms = monotonic_ms();
    int64_t expires_ms = now_ms + creation->ttl_s * 1000;

    if (sandbox != NULL)
        metrics_observe(METRIC_SANDBOX_CREATION, template_of(creation), (now_ms - creation->began_ms) * 1000);
    if (sandbox != NULL)
        run_lease_hold(host->scoreboard, creation->lease, RUN_LEASE_LIVE, sandbox->id, expires_ms);
    else if (!result->fate_unknown)
        run_lease_clear(host->scoreboard, creation->lease);
    if (result->fate_unknown)
        search(creation, sandbox, expires_ms);
    if (!creation->abandoned) {
        creation->handlers.on_created(creation->handlers.context, result, sandbox, creation->ttl_s);
        creation_free(creation);
        return;
    }
    if (sandbox != NULL) {
        kill_queue_add(host->kills, &(struct kill_order){.service = creation->e2b.service,
                                                         .sandbox_id = sandbox->id,
                                                         .run_id = creation->run_id,
                                                         .expires_ms = expires_ms,
                                                         .lease = creation->lease,
                                                         .cleanup = creation->cleanup});
        creation->cleanup = NULL;
    }
    e2b_sandbox_free(sandbox);
    creation_free(creation);
    host->create_count--;
    host->on_progress(host->context);
}

static bool send_create(struct creation *creation);

static void send_or_fail(struct creation *creation)
{
    const struct e2b_result failed = {.error = RUN_ERROR_INTERNAL, .message = "out of memory"};

    if (!send_create(creation))
        end(creation, &failed, NULL);
}

static void tell_fallback(struct creation *creation)
{
    char *message;

    creation->is_fallback = true;
    if (asprintf(&message,
                 "template %s does not exist: the run uses template " FALLBACK_TEMPLATE
                 " and installs the Agent SDK first, which takes longer",
                 creation->host->settings->template_name) < 0)
        return;
    creation->handlers.on_fallback(creation->handlers.context, message);
    free(message);
}

static bool may_fall_back(const struct creation *creation)
{
    return !creation->is_fallback && !creation->abandoned &&
           strcmp(creation->host->settings->template_name, FALLBACK_TEMPLATE) != 0;
}

/* Neither template: both refusals are told. A 403 for the fallback is about the key. */
static void end_without_template(struct creation *creation, const struct e2b_result *result)
{
    char message[E2B_MESSAGE_MAX_BYTES];
    struct e2b_result both = *result;

    if (creation->is_fallback && result->status == 403) {
        both.error = RUN_ERROR_E2B_AUTH;
    } else if (creation->is_fallback) {
        snprintf(message, sizeof message, "%s; fallback template " FALLBACK_TEMPLATE ": %.1024s",
                 creation->first_message, result->message);
        both.message = message;
    }
    end(creation, &both, NULL);
}

static void on_answer(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    struct creation *creation = context;
    bool is_too_long = result->status == 400 && strstr(result->message, TOO_LONG_TEXT) != NULL;

    creation->call = NULL;
    if (is_too_long && creation->ttl_s > creation->timeout_s && !creation->abandoned) {
        creation->ttl_s = creation->timeout_s;
        send_or_fail(creation);
    } else if (result->error == RUN_ERROR_TEMPLATE_NOT_FOUND && may_fall_back(creation)) {
        snprintf(creation->first_message, sizeof creation->first_message, "%.*s",
                 (int)sizeof creation->first_message - 1, result->message);
        error_text_clean(creation->first_message);
        template_memory_note(&creation->host->templates, creation->e2b.service, creation->host->settings->template_name,
                             monotonic_ms());
        tell_fallback(creation);
        send_or_fail(creation);
    } else if (result->error == RUN_ERROR_TEMPLATE_NOT_FOUND) {
        end_without_template(creation, result);
    } else {
        end(creation, result, sandbox);
    }
}

static bool send_create(struct creation *creation)
{
    const struct settings *settings = creation->host->settings;
    const struct e2b_create_request request = {
        .template_id = template_of(creation),
        .timeout_s = creation->ttl_s,
        .env = creation->env,
        .run_id = creation->run_id,
        .instance = creation->host->instance,
        .retry_timeout_ms = settings->create_retry_timeout_ms,
        .on_created = on_answer,
        .context = creation,
    };

    creation->call = e2b_create(&creation->e2b, &request);
    return creation->call != NULL;
}

struct creation *creation_start(struct run_host *host, const struct e2b_context *e2b,
                                const struct creation_request *request, const struct creation_handlers *handlers)
{
    struct creation *creation = calloc(1, sizeof *creation);

    if (creation == NULL)
        return NULL;
    creation->host = host;
    creation->e2b = *e2b;
    creation->e2b.service = e2b_service_ref(e2b->service);
    snprintf(creation->run_id, sizeof creation->run_id, "%s", request->run_id);
    creation->handlers = *handlers;
    creation->env = json_incref(request->env);
    creation->lease = request->lease;
    creation->began_ms = monotonic_ms();
    creation->timeout_s = request->timeout_s;
    creation->ttl_s = request->timeout_s + TTL_MARGIN_S;
    if (template_memory_is_missing(&host->templates, e2b->service, host->settings->template_name, monotonic_ms()) &&
        may_fall_back(creation)) {
        snprintf(creation->first_message, sizeof creation->first_message, "template %s is missing",
                 host->settings->template_name);
        tell_fallback(creation);
    }
    run_lease_creating(host->scoreboard, creation->lease, 0);
    if (send_create(creation))
        return creation;
    run_lease_clear(host->scoreboard, creation->lease);
    creation_free(creation);
    return NULL;
}

void creation_abandon(struct creation *creation, struct trace_span *cleanup)
{
    creation->abandoned = true;
    creation->cleanup = cleanup;
    creation->host->create_count++;
    e2b_create_abandon(creation->call, on_answer, creation);
}
