#include "common/clock.h"
#include "worker/run_internal.h"

#include "common/log.h"
#include "common/metrics.h"
#include "worker/file_event.h"
#include "worker/run_facts.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>

#define EXIT_GRACE_MS       10000 /* after a terminal line the process has this long to end */
#define NEAR_END_OF_LIFE_MS 2000  /* a stream lost this close to the sandbox's end of life is a time-out */
#define SHUTDOWN_TEXT       "server is shutting down"

static void start_collecting(struct run *run, enum run_error error, const char *message);

/* --- small things ------------------------------------------------------------------------------------ */

void run_put_warning(struct run *run, const char *code, const char *message)
{
    if (run->output.stream == NULL)
        return;
    event_stream_put_json(run->output.stream, json_pack("{s:s, s:s, s:s, s:s}", "type", "warning", "message", message,
                                                        "request_id", run->id, "code", code));
    event_stream_flush(run->output.stream);
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

void run_on_deferred(evutil_socket_t fd, short what, void *context)
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

struct event_stream_handlers run_client_handlers(struct run *run)
{
    return (struct event_stream_handlers){.on_drained = on_client_drained, .on_gone = on_client_gone, .context = run};
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
    run_trace_stage(run, RUN_STAGE_NONE, RUN_ERROR_NONE, "");
    if (incomplete)
        run_put_warning(run, "files_incomplete",
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
    run_trace_stage(run, RUN_STAGE_NONE, run_error_in_effect(run, error), run_pending_message(run));
    if (run->output.detached) {
        run_end(run, error, run_pending_message(run));
        return;
    }
    run->state = RUN_COLLECTING;
    run_trace_stage(run, RUN_STAGE_COLLECT, RUN_ERROR_NONE, "");
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

struct agent_output_handlers run_output_handlers(struct run *run)
{
    return (struct agent_output_handlers){
        .on_report = on_report, .on_terminal = on_terminal_line, .on_failed = on_output_failed, .context = run};
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
    run_trace_stage(run, RUN_STAGE_EXECUTE, RUN_ERROR_NONE, "");
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
    run_trace_stage(run, RUN_STAGE_INSTALL, RUN_ERROR_NONE, "");
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
    run_trace_stage(run, RUN_STAGE_UPLOAD, RUN_ERROR_NONE, "");
    run->upload = e2b_upload(&run->e2b, sandbox, run->config.files, run->config.file_count, on_uploaded, run);
    if (run->upload == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

static void on_fallback(void *context, const char *message)
{
    struct run *run = context;

    run->is_fallback = true;
    run_put_warning(run, "template_fallback", message);
}

void run_create_sandbox(struct run *run)
{
    const struct creation_request request = {.run_id = run->id,
                                             .timeout_s = run->timeout_s,
                                             .env = run->config.env,
                                             .lease = run_entry_lease_name(&run->entry)};
    const struct creation_handlers handlers = {.on_fallback = on_fallback, .on_created = on_created, .context = run};

    run_trace_stage(run, RUN_STAGE_CREATE, RUN_ERROR_NONE, "");
    run->creation = creation_start(run->host, &run->e2b, &request, &handlers);
    if (run->creation == NULL)
        run_end(run, RUN_ERROR_INTERNAL, "out of memory");
}

/* --- time --------------------------------------------------------------------------------------------- */

/* The deadline, or the end of the grace after a terminal line. */
void run_on_deadline(evutil_socket_t fd, short what, void *context)
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

/* --- all runs of a worker ------------------------------------------------------------------------------- */

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
