#include "worker/run.h"

#include "common/log.h"
#include "common/metrics.h"
#include "worker/agent_output.h"
#include "worker/agent_stream.h"
#include "worker/collection.h"
#include "worker/creation.h"
#include "worker/file_event.h"
#include "worker/input_files.h"
#include "worker/run_facts.h"
#include "worker/template_install.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_TIMEOUT_S   300
#define EXIT_GRACE_MS       10000 /* after a terminal line the process has this long to end */
#define NEAR_END_OF_LIFE_MS 2000  /* a stream lost this close to the sandbox's end of life is a time-out */
#define SHUTDOWN_TEXT       "server is shutting down"
#define ID_DRAWS_MAX        10 /* one is enough, but for once in many lives */

enum run_state {
    RUN_CREATING,   /* POST /sandboxes is in flight */
    RUN_UPLOADING,  /* the sandbox exists; its files are on their way */
    RUN_INSTALLING, /* the fallback template gets the Agent SDK */
    RUN_STARTING,   /* Process/Start was sent, no start event yet */
    RUN_STREAMING,  /* the agent runs */
    RUN_COLLECTING, /* the agent has ended; its files come back */
    RUN_ENDED,      /* waits for the loop to free it */
};

struct run {
    struct run_host *host;
    struct run_entry entry; /* its record, for all workers; and its lease */
    char id[RUN_ID_DIGITS + 1];
    enum run_state state;
    struct query_request request; /* until the upload is over */
    struct project_view view;     /* until the configuration is built */
    struct agent_config config;   /* until the upload is over */
    struct input_files *inputs;   /* from then on */
    struct e2b_context e2b;
    struct event_stream *stream; /* NULL: the client is gone */
    struct creation *creation;
    struct template_install *install;
    struct e2b_upload *upload;
    struct agent_stream *agent;
    struct collection *collection;
    struct e2b_sandbox *sandbox;
    int64_t agent_pid;
    char *model;              /* the effective one, for what is counted; NULL: none */
    int64_t agent_started_ms; /* 0: it did not */
    int64_t agent_us;         /* how long it ran; -1: unknown yet */
    struct agent_output output;
    struct event *deadline;       /* D of http-api.md 6.1; after the terminal line, the process's grace */
    struct event *deferred;       /* what may not happen inside libcurl, and the freeing */
    enum run_error pending_error; /* ends the run: from the loop, or after the collection */
    char *pending_message;
    bool is_fallback; /* the sandbox's template is not the configured one */
    bool failed;      /* pending_error ends it without a collection */
    bool has_output;  /* the agent said something */
    int64_t timeout_s;
    int64_t admitted_ms;
    int64_t deadline_ms;
    int64_t expires_ms; /* end of the sandbox's time to live */
    TAILQ_ENTRY(run) link;
};

static void run_end(struct run *run, enum run_error error, const char *message);
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

static void run_free(struct run *run)
{
    e2b_upload_cancel(run->upload);
    template_install_cancel(run->install);
    agent_stream_cancel(run->agent);
    collection_cancel(run->collection);
    e2b_sandbox_free(run->sandbox);
    e2b_service_unref(run->e2b.service);
    project_view_release(&run->view);
    agent_config_release(&run->config);
    query_request_release(&run->request);
    input_files_free(run->inputs);
    agent_output_release(&run->output);
    if (run->deadline != NULL)
        event_free(run->deadline);
    if (run->deferred != NULL)
        event_free(run->deferred);
    free(run->pending_message);
    free(run->model);
    free(run);
}

/* The message may be one that goes away with what is freed next, or the pending one itself. */
static void set_pending(struct run *run, enum run_error error, const char *message)
{
    char *copy = strdup(message);

    if (copy != NULL)
        error_text_clean(copy);
    free(run->pending_message);
    run->pending_error = error;
    run->pending_message = copy;
}

static const char *pending_message(const struct run *run)
{
    return run->pending_message != NULL ? run->pending_message : "";
}

static void put_warning(struct run *run, const char *code, const char *message)
{
    if (run->stream == NULL)
        return;
    event_stream_put_json(run->stream, json_pack("{s:s, s:s, s:s, s:s}", "type", "warning", "message", message,
                                                 "request_id", run->id, "code", code));
    event_stream_flush(run->stream);
}

/* --- the end ------------------------------------------------------------------------------------------ */

static enum run_error error_of_report(const struct agent_report *report)
{
    switch (report->ending) {
    case AGENT_FAILED:
        return RUN_ERROR_AGENT_RESULT;
    case AGENT_ERROR:
        return RUN_ERROR_AGENT_ERROR;
    case AGENT_NOT_ENDED:
    case AGENT_SUCCEEDED:
        return RUN_ERROR_NONE;
    default:
        log_panic("run: ending %d", (int)report->ending);
    }
}

/* The agent has ended, or nobody waits for its end. */
static void let_go_of_agent(struct run *run)
{
    agent_stream_cancel(run->agent);
    run->agent = NULL;
    if (run->agent_started_ms > 0 && run->agent_us < 0)
        run->agent_us = (monotonic_ms() - run->agent_started_ms) * 1000;
}

/* The sandbox, if there is one or may be one, is on its way out before anything else happens. */
static void let_go_of_sandbox(struct run *run)
{
    let_go_of_agent(run);
    collection_cancel(run->collection);
    run->collection = NULL;
    e2b_upload_cancel(run->upload);
    run->upload = NULL;
    template_install_cancel(run->install);
    run->install = NULL;
    if (run->creation != NULL)
        creation_abandon(run->creation);
    else if (run->sandbox != NULL)
        kill_queue_add(run->host->kills, &(struct kill_order){.service = run->e2b.service,
                                                              .sandbox_id = run->sandbox->id,
                                                              .run_id = run->id,
                                                              .expires_ms = run->expires_ms,
                                                              .lease = run_entry_lease_name(&run->entry)});
}

/* Nobody listens any more. */
static void forget_client(struct run *run)
{
    run->stream = NULL;
    agent_output_listen(&run->output, NULL);
}

static bool has_terminal_line(const struct run *run)
{
    return run->output.report.ending != AGENT_NOT_ENDED;
}

/* The server's own terminal event, if there was no terminal line and somebody listens (http-api.md section 8). */
static void finish_stream(struct run *run, enum run_error error, const char *message)
{
    struct event_stream *stream = run->stream;

    if (stream == NULL)
        return;
    forget_client(run);
    if (error != RUN_ERROR_NONE && !has_terminal_line(run))
        event_stream_put_json(stream, json_pack("{s:s, s:o, s:s, s:s}", "type", "error", "error",
                                                json_lossy_string(message, strlen(message)), "request_id", run->id,
                                                "code", run_error_code(error)));
    event_stream_end(stream);
}

static void log_start(const struct run *run)
{
    const char *name = run->model != NULL ? run->model : "-";
    char clean[LOG_CLEAN_BUFFER];

    log_info("run %s started model=%s timeout=%llds", run->id, log_clean(name, strlen(name), clean),
             (long long)run->timeout_s);
}

static void log_end(const struct run *run, enum run_error error)
{
    const char *outcome = run_status_name((enum run_status)run->entry.record.status);

    log_info("run %s ended outcome=%s code=%s sandbox=%s turns=%lld cost=%.4f duration=%.1fs", run->id, outcome,
             error == RUN_ERROR_NONE ? "-" : run_error_code(error), run->sandbox != NULL ? run->sandbox->id : "-",
             (long long)run->output.report.num_turns, run->output.report.cost_usd,
             (double)(monotonic_ms() - run->admitted_ms) / 1000);
}

static void count_end(const struct run *run, enum run_error error)
{
    const struct run_record *record = &run->entry.record;

    metrics_run_ended(&(struct metrics_run){.model = run->model,
                                            .status = (enum run_status)record->status,
                                            .error_code = run_error_code(error),
                                            .duration_us = record->duration_us,
                                            .agent_us = run->agent_us,
                                            .cost_usd = record->has_cost ? record->cost_usd : 0});
}

/*
 * The record is final, on all workers, and the slot of admission free, before the client sees the end. An accepted
 * cancel decides whatever ended the run first.
 */
static enum run_error close_record(struct run *run, enum run_error error)
{
    bool cancelled = run_entry_begin_end(&run->entry);

    if (has_terminal_line(run))
        error = error_of_report(&run->output.report);
    if (cancelled) {
        error = RUN_ERROR_CANCELLED;
        set_pending(run, error, RUN_CANCELLED_TEXT);
    }
    run_facts_ended(&run->entry, error, pending_message(run), (monotonic_ms() - run->admitted_ms) * 1000);
    run_entry_publish(&run->entry);
    history_append(run->host->history, run->entry.index); /* while it cannot be forgotten */
    run_entry_end(&run->entry);
    count_end(run, error);
    scoreboard_end_run(run->host->scoreboard, run->host->slot);
    return error;
}

/*
 * The one end of a run, never called inside libcurl: called once, by whoever sees the end first. RUN_ERROR_NONE: the
 * terminal line decides; so it does with every later error.
 */
static void run_end(struct run *run, enum run_error error, const char *message)
{
    struct run_host *host = run->host;

    if (run->state == RUN_ENDED)
        log_panic("run %s ended twice", run->id);
    run->state = RUN_ENDED;
    set_pending(run, error, message); /* it may go away with what is let go of */
    let_go_of_sandbox(run);
    error = close_record(run, error);
    finish_stream(run, error, pending_message(run));
    log_end(run, error);
    TAILQ_REMOVE(&host->runs, run, link);
    host->run_count--;
    event_del(run->deadline);
    agent_output_stop(&run->output);
    event_active(run->deferred, 0, 0); /* freed from the loop: a caller may still look at it */
}

/* Ends the run from the loop: for what is seen inside libcurl. */
static void on_output_failed(void *context, enum run_error error, const char *message)
{
    struct run *run = context;

    if (run->failed || run->state == RUN_ENDED)
        return;
    run->failed = true;
    set_pending(run, error, message);
    let_go_of_agent(run);
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
    } else if (run->failed) {
        run_end(run, run->pending_error, pending_message(run));
    }
}

/* --- client ------------------------------------------------------------------------------------------- */

static void on_client_gone(void *context, const char *reason)
{
    struct run *run = context;

    forget_client(run);
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

    file_event_put(run->stream, path, spool);
}

static void on_collected(void *context, bool incomplete)
{
    struct run *run = context;

    run->collection = NULL;
    if (incomplete)
        put_warning(run, "files_incomplete",
                    "not all files of the agent are returned: too many, too large, or unreadable");
    run_end(run, run->pending_error, pending_message(run));
}

/* The agent has ended, or had to: what it wrote comes back, then the run ends with this error. */
static void start_collecting(struct run *run, enum run_error error, const char *message)
{
    const struct collection_limits limits = {
        .file_bytes = run->host->settings->extract_file_limit_bytes,
        .total_timeout_ms = run->host->settings->extract_timeout_ms,
    };
    const struct collection_handlers handlers = {.on_file = on_file, .on_done = on_collected, .context = run};

    set_pending(run, error, message);
    let_go_of_agent(run);
    event_del(run->deadline);
    agent_output_stop(&run->output);
    run->state = RUN_COLLECTING;
    run->collection = collection_start(&run->e2b, run->sandbox, &limits, run->inputs, &handlers);
    if (run->collection == NULL)
        run_end(run, error, pending_message(run));
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

/* Inside libcurl. */
static void on_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    struct run *run = context;

    if (!run->has_output)
        metrics_observe(METRIC_FIRST_EVENT, NULL, (monotonic_ms() - run->admitted_ms) * 1000);
    run->has_output = true;
    agent_output_add(&run->output, is_stderr, bytes, length);
}

static void on_output_end(void *context)
{
    struct run *run = context;

    agent_output_flush(&run->output);
    if (run->stream != NULL && event_stream_full(run->stream) && run->agent != NULL)
        agent_stream_pause(run->agent);
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
    if (run->failed)
        return;
    log_debug("run %s: agent ended: %s", run->id, log_clean(status, strlen(status), clean));
    if (has_terminal_line(run)) {
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
        if (has_terminal_line(run) && monotonic_ms() < run->deadline_ms) {
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
    run->agent_us = -1;
    run->deadline = evtimer_new(host->base, on_deadline, run);
    run->deferred = event_new(host->base, -1, 0, on_deferred, run);
    if (agent_output_init(&run->output, host->base, (size_t)host->settings->line_limit_bytes, &output) &&
        run->deadline != NULL && run->deferred != NULL && take_slot(run))
        return run;
    run_free(run);
    return NULL;
}

/* The record, seen and cancelled by all workers before the client hears of the run. */
static void open_record(struct run *run)
{
    const struct e2b_service *service = run->e2b.service;

    run_facts_admitted(&run->entry, &run->request, run->view.project, run->host->settings);
    run->entry.record.is_local = service->unix_socket != NULL;
    if (service->unix_socket == NULL && run->request.e2b_api_key != NULL)
        run_entry_mark_foreign(&run->entry);
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

void run_start(struct run_host *host, struct exchange *exchange, struct run_order *order)
{
    struct run *run = run_new(host, order);
    const struct event_stream_handlers handlers = {
        .on_drained = on_client_drained, .on_gone = on_client_gone, .context = run};

    if (run == NULL) {
        scoreboard_end_run(host->scoreboard, host->slot);
        server_reply_internal(exchange, "out of memory");
        return;
    }
    open_record(run);
    run->stream = event_stream_open(exchange, run->id, &handlers);
    if (run->stream == NULL) {
        set_pending(run, RUN_ERROR_INTERNAL, "out of memory");
        (void)close_record(run, RUN_ERROR_INTERNAL);
        run_free(run);
        return;
    }
    agent_output_listen(&run->output, run->stream);
    TAILQ_INSERT_TAIL(&host->runs, run, link);
    host->run_count++;
    cap_timeout(run);
    warn_of_remember(run);
    log_start(run);
    timer_start(run->deadline, host->settings->timeout_ms);
    configure(run);
}

void run_cancel_wanted(struct run_host *host)
{
    struct run *run, *next;

    for (run = TAILQ_FIRST(&host->runs); run != NULL; run = next) {
        next = TAILQ_NEXT(run, link);
        if (run_entry_is_cancelled(&run->entry))
            run_end(run, RUN_ERROR_CANCELLED, RUN_CANCELLED_TEXT);
    }
}

void run_end_all(struct run_host *host)
{
    struct run *run;

    while ((run = TAILQ_FIRST(&host->runs)) != NULL)
        run_end(run, RUN_ERROR_SERVER_SHUTDOWN, SHUTDOWN_TEXT);
}
