/*
 * The beginning of a run: from an admitted order to its record, its client's stream and the request for its sandbox.
 */
#include "common/clock.h"
#include "worker/run_internal.h"

#include "common/log.h"
#include "worker/run_facts.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_TIMEOUT_S 300
#define ID_DRAWS_MAX      10 /* one is enough, but for once in many lives */

void run_order_release(struct run_order *order)
{
    query_request_release(&order->request);
    project_view_release(&order->view);
    e2b_service_unref(order->service);
    order->service = NULL;
}

/* A slot in the table under an id that nobody has. */
static bool take_slot(struct run *run)
{
    struct run_host *host = run->host;

    for (int i = 0; i < ID_DRAWS_MAX; i++) {
        uint64_t id;

        if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id)
            return false;
        if (run_entry_take(&run->entry, host->scoreboard, host->serial, id)) {
            run_id_format(id, run->id);
            return true;
        }
    }
    return false;
}

static void log_start(const struct run *run)
{
    const char *name = run->model != NULL ? run->model : "-";
    char clean[LOG_CLEAN_BUFFER];

    log_info("run %s started model=%s timeout=%llds", run->id, log_clean(name, strlen(name), clean),
             (long long)run->timeout_s);
}

/* T before the server's cap: the request's, else the project's. */
static int64_t wanted_timeout_s(const struct run *run)
{
    if (run->request.timeout_s > 0)
        return run->request.timeout_s;
    return run->view.project->timeout_s > 0 ? run->view.project->timeout_s : DEFAULT_TIMEOUT_S;
}

/* NULL for none, and for lack of memory: it only names what is counted and logged. */
static char *copy_model(const struct run *run)
{
    const json_t *model = run_model(&run->request, run->view.project);

    return model != NULL ? strdup(json_string_value(model)) : NULL;
}

static struct run *run_new(struct run_host *host, struct run_order *order, const char *trigger)
{
    struct run *run = calloc(1, sizeof *run);
    struct agent_output_handlers output;

    if (run == NULL) {
        run_order_release(order);
        return NULL;
    }
    output = run_output_handlers(run);
    run->host = host;
    run->state = RUN_CREATING;
    run->request = order->request;
    run->view = order->view;
    run->e2b = (struct e2b_context){.http = host->http, .base = host->base, .service = order->service};
    run->admitted_ms = monotonic_ms();
    run->timeout_s = wanted_timeout_s(run);
    run->model = copy_model(run);
    run->agent_us = run->first_output_ms = -1;
    run_trace_begin(run, &order->caller, trigger);
    run->deadline = evtimer_new(host->base, run_on_deadline, run);
    run->deferred = event_new(host->base, -1, 0, run_on_deferred, run);
    agent_output_init(&run->output, host->base, (size_t)host->settings->line_limit_bytes, &output);
    if (run->deadline != NULL && run->deferred != NULL && take_slot(run))
        return run;
    run_free(run);
    return NULL;
}

/* The record, seen and cancelled by all workers before the client hears of the run. trigger: NULL when it has one. */
static void open_record(struct run *run, const char *trigger)
{
    const struct e2b_service *service = run->e2b.service;
    const char *own_key = environment_value(run->view.environment, "E2B_API_KEY");

    run_facts_admitted(&run->entry, &run->request, run->view.project, run->host->settings);
    run->entry.record.is_local = service->unix_socket != NULL;
    if (service->unix_socket == NULL && (own_key == NULL || strcmp(service->api_key, own_key) != 0))
        run_entry_mark_foreign(&run->entry);
    if (trigger != NULL)
        run_entry_set(&run->entry, RUN_STRING_TRIGGER, trigger, strlen(trigger));
    run_entry_publish(&run->entry);
    history_append(run->host->history, run->entry.index);
}

/* T is capped by the setting `timeout`; the client is told (http-api.md 6.1). */
static void cap_timeout(struct run *run)
{
    int64_t cap_s = run->host->settings->timeout_ms / 1000;
    char message[128];

    if (run->timeout_s <= cap_s)
        return;
    snprintf(message, sizeof message, "timeout of %lld s is lowered to the server's limit of %lld s",
             (long long)run->timeout_s, (long long)cap_s);
    run_put_warning(run, "timeout_capped", message);
    run->timeout_s = cap_s;
}

/* What this version does not do is said, not left out in silence. */
static void warn_of_remember(struct run *run)
{
    if (json_string_length(run->request.remember) > 0)
        run_put_warning(run, "remember_ignored", "remember is ignored: this server keeps no memory of users");
}

/* The sandbox's configuration, then the sandbox. */
static void configure(struct run *run)
{
    const struct agent_sources sources = {.request = &run->request,
                                          .project = run->view.project,
                                          .environment = run->view.environment,
                                          .skills = run->view.skills,
                                          .runner = &run->host->runner,
                                          .project_dir = project_dir_path(run->host->project_dir),
                                          .timeout_s = run->timeout_s};
    bool built = agent_config_build(&run->config, &sources);

    project_view_release(&run->view);
    if (built) {
        run_trace_put_env(run, run->config.env);
        run_create_sandbox(run);
    } else if (run->config.error != NULL)
        run_end(run, RUN_ERROR_CONFIG, run->config.error);
    else
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

/* It goes on from here. */
static void begin(struct run *run)
{
    TAILQ_INSERT_TAIL(&run->host->runs, run, link);
    run->host->run_count++;
    cap_timeout(run);
    warn_of_remember(run);
    log_start(run);
    timer_start(run->deadline, run->host->settings->timeout_ms);
}

void run_start(struct run_host *host, struct exchange *exchange, struct run_order *order)
{
    struct run *run = run_new(host, order, NULL);
    struct event_stream_handlers handlers;
    struct event_stream *stream;

    if (run == NULL) {
        scoreboard_end_run(host->scoreboard, host->slot);
        server_reply_internal(exchange, "out of memory");
        return;
    }
    handlers = run_client_handlers(run);
    open_record(run, NULL);
    run->access = server_access(exchange);
    stream = event_stream_open(exchange, run->id, &handlers);
    if (stream == NULL) {
        run_end_unheard(run);
        run_free(run);
        return;
    }
    agent_output_listen(&run->output, stream);
    begin(run);
    configure(run);
}

bool run_start_detached(struct run_host *host, struct run_order *order, const char *trigger, const char *missing,
                        uint64_t *id)
{
    struct run *run = run_new(host, order, trigger);

    if (run == NULL) {
        scoreboard_end_run(host->scoreboard, host->slot);
        return false;
    }
    run->output.detached = true;
    *id = run->entry.record.id;
    open_record(run, trigger);
    begin(run);
    if (missing != NULL)
        run_end(run, RUN_ERROR_CONFIG, missing);
    else
        configure(run);
    return true;
}
