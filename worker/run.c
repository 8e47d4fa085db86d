#include "common/clock.h"
#include "worker/run_internal.h"

#include "common/log.h"
#include "common/metrics.h"
#include "worker/file_event.h"
#include "worker/run_facts.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_TIMEOUT_S   300
#define EXIT_GRACE_MS       10000 /* after a terminal line the process has this long to end */
#define NEAR_END_OF_LIFE_MS 2000  /* a stream lost this close to the sandbox's end of life is a time-out */
#define SHUTDOWN_TEXT       "server is shutting down"
#define ID_DRAWS_MAX        10 /* one is enough, but for once in many lives */

static void start_collecting(struct run *run, enum run_error error, const char *message);

/* --- small things ------------------------------------------------------------------------------------ */

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

static void put_warning(struct run *run, const char *code, const char *message)
{
    if (run->output.stream == NULL)
        return;
    event_stream_put_json(run->output.stream, json_pack("{s:s, s:s, s:s, s:s}", "type", "warning", "message", message,
                                                        "request_id", run->id, "code", code));
    event_stream_flush(run->output.stream);
}

static void log_start(const struct run *run)
{
    const char *name = run->model != NULL ? run->model : "-";
    char clean[LOG_CLEAN_BUFFER];

    log_info("run %s started model=%s timeout=%llds", run->id, log_clean(name, strlen(name), clean),
             (long long)run->timeout_s);
}

/* Ends the run from the loop: for what is seen inside libcurl. */
static void on_output_failed(void *context, enum run_error error, const char *message)
{
    struct run *run = context;

    if (run->state == RUN_ENDED)
        return;
    run_set_pending(run, error, message);
    run_let_go_of_agent(run);
    event_active(run->deferred, 0, 0);
}

static void on_deferred(evutil_socket_t fd, short what, void *context)
{
    struct run *run = context;
    struct run_host *host = run->host;

    (void)fd;
    (void)what;
    if (run->state == RUN_ENDED) {
        run_free(run);
        host->on_progress(host->context);
    } else if (run->output.failed) {
        run_end(run, run->pending_error, run_pending_message(run));
    }
}

/* --- client ------------------------------------------------------------------------------------------- */

static void on_client_gone(void *context, const char *reason)
{
    struct run *run = context;

    agent_output_listen(&run->output, NULL);
    log_debug("run %s: %s", run->id, reason);
    if (run->state != RUN_ENDED)
        run_end(run, RUN_ERROR_CLIENT_GONE, reason);
}

static void on_client_drained(void *context)
{
    struct run *run = context;

    if (run->agent != NULL)
        agent_stream_resume(run->agent);
}

/* --- collecting --------------------------------------------------------------------------------------- */

static void on_file(void *context, const char *path, struct spool *spool)
{
    struct run *run = context;

    file_event_put(run->output.stream, path, spool);
}

static void on_collected(void *context, bool incomplete)
{
    struct run *run = context;

    run->collection = NULL;
    if (incomplete)
        put_warning(run, "files_incomplete",
                    "not all files of the agent are returned: too many, too large, or unreadable");
    run_end(run, run->pending_error, run_pending_message(run));
}

/* The agent has ended, or had to: what it wrote comes back if somebody waits for it, then the run ends with this error.
 */
static void start_collecting(struct run *run, enum run_error error, const char *message)
{
    const struct collection_limits limits = {
        .file_bytes = run->host->settings->extract_file_limit_bytes,
        .total_timeout_ms = run->host->settings->extract_timeout_ms,
    };
    const struct collection_handlers handlers = {.on_file = on_file, .on_done = on_collected, .context = run};

    run_set_pending(run, error, message);
    run_let_go_of_agent(run);
    event_del(run->deadline);
    agent_output_stop(&run->output);
    if (run->output.detached) {
        run_end(run, error, run_pending_message(run));
        return;
    }
    run->state = RUN_COLLECTING;
    run->collection = collection_start(&run->e2b, run->sandbox, &limits, run->inputs, &handlers);
    if (run->collection == NULL)
        run_end(run, error, run_pending_message(run));
}

/* --- output ------------------------------------------------------------------------------------------- */

/* Inside libcurl. */
static void on_report(void *context)
{
    struct run *run = context;

    run_facts_report(&run->entry, &run->output.report);
    run_entry_publish(&run->entry);
}

/* Inside libcurl. After the terminal line the process has a moment to end, but not beyond D. */
static void on_terminal_line(void *context)
{
    struct run *run = context;
    int64_t left_ms = run->deadline_ms - monotonic_ms();

    timer_start(run->deadline, left_ms < EXIT_GRACE_MS ? left_ms : EXIT_GRACE_MS);
}

static void pause_if_full(struct run *run)
{
    if (run->output.stream != NULL && event_stream_full(run->output.stream) && run->agent != NULL)
        agent_stream_pause(run->agent);
}

/* Inside libcurl. */
static void on_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    struct run *run = context;

    if (run->first_output_ms < 0) {
        run->first_output_ms = monotonic_ms() - run->admitted_ms;
        metrics_observe(METRIC_FIRST_EVENT, NULL, run->first_output_ms * 1000);
    }
    agent_output_add(&run->output, is_stderr, bytes, length);
    pause_if_full(run);
}

static void on_output_end(void *context)
{
    struct run *run = context;

    agent_output_flush(&run->output);
    pause_if_full(run);
}

/* --- the agent ---------------------------------------------------------------------------------------- */

static void on_agent_start(void *context, int64_t pid)
{
    struct run *run = context;

    run->agent_pid = pid;
    run->agent_started_ms = monotonic_ms();
    if (run->state == RUN_STARTING)
        run->state = RUN_STREAMING;
}

static void on_agent_exit(void *context, int exit_code, const char *status)
{
    struct run *run = context;
    char clean[LOG_CLEAN_BUFFER];
    char message[128];

    agent_output_finish(&run->output);
    run->entry.record.has_exit_code = true;
    run->entry.record.exit_code = exit_code;
    if (run->output.failed)
        return;
    log_debug("run %s: agent ended: %s", run->id, log_clean(status, strlen(status), clean));
    if (run_has_terminal_line(run)) {
        start_collecting(run, RUN_ERROR_NONE, "");
        return;
    }
    snprintf(message, sizeof message, "agent exited with code %d before it gave a result", exit_code);
    start_collecting(run, RUN_ERROR_AGENT_EXIT, message);
}

static void timeout_message(const struct run *run, char *out, size_t size)
{
    snprintf(out, size, "run exceeded its timeout of %lld s", (long long)run->timeout_s);
}

/* A stream that is lost where the sandbox's time is over anyway is a time-out (http-api.md 6.9). */
static void on_agent_lost(void *context, enum run_error error, const char *message)
{
    struct run *run = context;
    int64_t now_ms = monotonic_ms();
    char text[64];

    if ((error == RUN_ERROR_SANDBOX_LOST || agent_stream_stopped(run->agent)) &&
        (now_ms >= run->deadline_ms || now_ms >= run->expires_ms - NEAR_END_OF_LIFE_MS)) {
        timeout_message(run, text, sizeof text);
        run_end(run, RUN_ERROR_RUN_TIMEOUT, text);
        return;
    }
    run_end(run, error, message);
}

static void start_agent(struct run *run)
{
    const struct settings *settings = run->host->settings;
    const struct agent_stream_request request = {
        .command = settings->agent_command,
        .start_timeout_ms = settings->agent_start_timeout_ms,
        .idle_timeout_ms = settings->stream_idle_timeout_ms,
        .handlers = {.on_start = on_agent_start,
                     .on_output = on_output,
                     .on_output_end = on_output_end,
                     .on_exit = on_agent_exit,
                     .on_lost = on_agent_lost,
                     .context = run},
    };

    run->state = RUN_STARTING;
    run->agent = agent_stream_open(&run->e2b, run->sandbox, &request);
    if (run->agent == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

/* --- sandbox ------------------------------------------------------------------------------------------ */

static void on_installed(void *context, const struct e2b_result *result)
{
    struct run *run = context;

    run->install = NULL;
    if (result->error == RUN_ERROR_NONE)
        start_agent(run);
    else
        run_end(run, result->error, result->message);
}

static void install_sdk(struct run *run)
{
    run->state = RUN_INSTALLING;
    run->install =
        template_install_start(&run->e2b, run->sandbox, run->host->settings->agent_sdk_version, on_installed, run);
    if (run->install == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

static void on_uploaded(void *context, const struct e2b_result *result)
{
    struct run *run = context;

    run->upload = NULL;
    if (result->error != RUN_ERROR_NONE) {
        run_end(run, result->error, result->message);
        return;
    }
    run->inputs = input_files_new(run->request.files);
    if (run->inputs == NULL) {
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
        return;
    }
    agent_config_release(&run->config);
    query_request_release(&run->request); /* it may be large, and the agent may run for an hour */
    if (run->is_fallback)
        install_sdk(run);
    else
        start_agent(run);
}

/* D: T seconds after the sandbox was created, and never later than `timeout` after the admission. */
static void set_deadline(struct run *run, int64_t ttl_s)
{
    int64_t now_ms = monotonic_ms();
    int64_t latest_ms = run->admitted_ms + run->host->settings->timeout_ms;

    run->deadline_ms = now_ms + run->timeout_s * 1000 < latest_ms ? now_ms + run->timeout_s * 1000 : latest_ms;
    run->expires_ms = now_ms + ttl_s * 1000;
    timer_start(run->deadline, run->deadline_ms - now_ms);
}

static void on_created(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox, int64_t ttl_s)
{
    struct run *run = context;

    run->creation = NULL;
    if (sandbox == NULL) {
        run_end(run, result->error, result->message);
        return;
    }
    run->sandbox = sandbox;
    run_entry_set(&run->entry, RUN_STRING_SANDBOX_ID, sandbox->id, strlen(sandbox->id));
    run_entry_publish(&run->entry);
    history_append(run->host->history, run->entry.index);
    log_info("run %s sandbox %s created", run->id, sandbox->id);
    set_deadline(run, ttl_s);
    run->state = RUN_UPLOADING;
    run->upload = e2b_upload(&run->e2b, sandbox, run->config.files, run->config.file_count, on_uploaded, run);
    if (run->upload == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

static void on_fallback(void *context, const char *message)
{
    struct run *run = context;

    run->is_fallback = true;
    put_warning(run, "template_fallback", message);
}

static void create_sandbox(struct run *run)
{
    const struct creation_request request = {.run_id = run->id,
                                             .timeout_s = run->timeout_s,
                                             .env = run->config.env,
                                             .lease = run_entry_lease_name(&run->entry)};
    const struct creation_handlers handlers = {.on_fallback = on_fallback, .on_created = on_created, .context = run};

    run->creation = creation_start(run->host, &run->e2b, &request, &handlers);
    if (run->creation == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

/* --- time --------------------------------------------------------------------------------------------- */

/* The deadline, or the end of the grace after a terminal line. */
static void on_deadline(evutil_socket_t fd, short what, void *context)
{
    struct run *run = context;
    char message[64];

    (void)fd;
    (void)what;
    timeout_message(run, message, sizeof message);
    switch (run->state) {
    case RUN_CREATING:
    case RUN_UPLOADING:
    case RUN_INSTALLING:
    case RUN_STARTING:
        run_end(run, RUN_ERROR_RUN_TIMEOUT, message);
        break;
    case RUN_STREAMING:
        if (run_has_terminal_line(run) && monotonic_ms() < run->deadline_ms) {
            agent_output_finish(&run->output);
            start_collecting(run, RUN_ERROR_NONE, "");
            break;
        }
        e2b_kill_process(&run->e2b, run->sandbox, run->agent_pid);
        start_collecting(run, RUN_ERROR_RUN_TIMEOUT, message);
        break;
    case RUN_COLLECTING:
    case RUN_ENDED:
        break;
    default:
        log_panic("run %s: state %d", run->id, (int)run->state);
    }
}

/* --- the beginning ------------------------------------------------------------------------------------ */

void run_order_release(struct run_order *order)
{
    query_request_release(&order->request);
    project_view_release(&order->view);
    e2b_service_unref(order->service);
    order->service = NULL;
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

static struct run *run_new(struct run_host *host, struct run_order *order)
{
    struct run *run = calloc(1, sizeof *run);
    const struct agent_output_handlers output = {
        .on_report = on_report, .on_terminal = on_terminal_line, .on_failed = on_output_failed, .context = run};

    if (run == NULL) {
        run_order_release(order);
        return NULL;
    }
    run->host = host;
    run->state = RUN_CREATING;
    run->request = order->request;
    run->view = order->view;
    run->e2b = (struct e2b_context){.http = host->http, .base = host->base, .service = order->service};
    run->admitted_ms = monotonic_ms();
    run->timeout_s = wanted_timeout_s(run);
    run->model = copy_model(run);
    run->agent_us = run->first_output_ms = -1;
    run->deadline = evtimer_new(host->base, on_deadline, run);
    run->deferred = event_new(host->base, -1, 0, on_deferred, run);
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
    put_warning(run, "timeout_capped", message);
    run->timeout_s = cap_s;
}

/* What this version does not do is said, not left out in silence. */
static void warn_of_remember(struct run *run)
{
    if (json_string_length(run->request.remember) > 0)
        put_warning(run, "remember_ignored", "remember is ignored: this server keeps no memory of users");
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
    if (built)
        create_sandbox(run);
    else if (run->config.error != NULL)
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
    struct run *run = run_new(host, order);
    const struct event_stream_handlers handlers = {
        .on_drained = on_client_drained, .on_gone = on_client_gone, .context = run};
    struct event_stream *stream;

    if (run == NULL) {
        scoreboard_end_run(host->scoreboard, host->slot);
        server_reply_internal(exchange, "out of memory");
        return;
    }
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
    struct run *run = run_new(host, order);

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

void run_end_wanted(struct run_host *host)
{
    struct run *run, *next;

    for (run = TAILQ_FIRST(&host->runs); run != NULL; run = next) {
        next = TAILQ_NEXT(run, link);
        if (run_entry_is_cancelled(&run->entry))
            run_end(run, RUN_ERROR_CANCELLED, RUN_CANCELLED_TEXT);
        else if (run_entry_is_lost(&run->entry))
            run_end(run, RUN_ERROR_SANDBOX_LOST, "the sandbox service says that the sandbox was killed");
    }
}

void run_end_all(struct run_host *host)
{
    struct run *run;

    while ((run = TAILQ_FIRST(&host->runs)) != NULL)
        run_end(run, RUN_ERROR_SERVER_SHUTDOWN, SHUTDOWN_TEXT);
}
