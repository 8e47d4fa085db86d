/*
 * The end of a run: whatever ended it, its record is final, its sandbox on its way out, and its client told, once.
 */
#include "common/clock.h"
#include "worker/run_internal.h"

#include "common/log.h"
#include "common/metrics.h"
#include "worker/access_log.h"
#include "worker/error_text.h"
#include "worker/run_facts.h"

#include <stdlib.h>
#include <string.h>

void run_set_pending(struct run *run, enum run_error error, const char *message)
{
    char *copy = strdup(message);

    if (copy != NULL)
        error_text_clean(copy);
    free(run->pending_message);
    run->pending_error = error;
    run->pending_message = copy;
}

const char *run_pending_message(const struct run *run)
{
    return run->pending_message != NULL ? run->pending_message : "";
}

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

void run_let_go_of_agent(struct run *run)
{
    agent_stream_cancel(run->agent);
    run->agent = NULL;
    if (run->agent_started_ms > 0 && run->agent_us < 0)
        run->agent_us = (monotonic_ms() - run->agent_started_ms) * 1000;
}

/* The sandbox, if there is one or may be one, is on its way out before anything else happens. */
static void let_go_of_sandbox(struct run *run)
{
    run_let_go_of_agent(run);
    collection_cancel(run->collection);
    run->collection = NULL;
    e2b_upload_cancel(run->upload);
    run->upload = NULL;
    template_install_cancel(run->install);
    run->install = NULL;
    if (run->creation != NULL)
        creation_abandon(run->creation, run_trace_cleanup(run));
    else if (run->sandbox != NULL)
        kill_queue_add(run->host->kills, &(struct kill_order){.service = run->e2b.service,
                                                              .sandbox_id = run->sandbox->id,
                                                              .run_id = run->id,
                                                              .expires_ms = run->expires_ms,
                                                              .lease = run_entry_lease_name(&run->entry),
                                                              .cleanup = run_trace_cleanup(run)});
}

bool run_has_terminal_line(const struct run *run)
{
    return run->output.report.ending != AGENT_NOT_ENDED;
}

enum run_error run_error_in_effect(const struct run *run, enum run_error error)
{
    return run_has_terminal_line(run) ? error_of_report(&run->output.report) : error;
}

/* The server's own terminal event, if there was no terminal line and somebody listens (http-api.md section 8). */
static void finish_stream(struct run *run, enum run_error error, const char *message)
{
    struct event_stream *stream = run->output.stream;

    if (stream == NULL)
        return;
    agent_output_listen(&run->output, NULL);
    if (error != RUN_ERROR_NONE && !run_has_terminal_line(run))
        event_stream_put_json(stream, json_pack("{s:s, s:o, s:s, s:s}", "type", "error", "error",
                                                json_lossy_string(message, strlen(message)), "request_id", run->id,
                                                "code", run_error_code(error)));
    event_stream_end(stream);
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

static void tell_access_log(struct run *run, enum run_error error)
{
    access_run(run->access, &(struct access_run){.id = run->id,
                                                 .state = run_status_name((enum run_status)run->entry.record.status),
                                                 .error_code = run_error_code(error),
                                                 .first_event_ms = run->first_output_ms,
                                                 .sandbox_id = run->sandbox != NULL ? run->sandbox->id : NULL,
                                                 .model = run->model});
    run->access = NULL;
}

/*
 * The record is final, on all workers, and the slot of admission free, before the client sees the end. An accepted
 * cancel decides whatever ended the run first.
 */
static enum run_error close_record(struct run *run, enum run_error error)
{
    bool cancelled = run_entry_begin_end(&run->entry);

    error = run_error_in_effect(run, error);
    if (cancelled) {
        error = RUN_ERROR_CANCELLED;
        run_set_pending(run, error, RUN_CANCELLED_TEXT);
    }
    run_facts_ended(&run->entry, error, run_pending_message(run), (monotonic_ms() - run->admitted_ms) * 1000);
    run_entry_publish(&run->entry);
    history_append(run->host->history, run->entry.index); /* while it cannot be forgotten */
    run_entry_end(&run->entry);
    count_end(run, error);
    tell_access_log(run, error);
    scoreboard_end_run(run->host->scoreboard, run->host->slot);
    return error;
}

void run_end(struct run *run, enum run_error error, const char *message)
{
    struct run_host *host = run->host;

    if (run->state == RUN_ENDED)
        log_panic("run %s ended twice", run->id);
    run->state = RUN_ENDED;
    run_set_pending(run, error, message); /* it may go away with what is let go of */
    let_go_of_sandbox(run);
    error = close_record(run, error);
    finish_stream(run, error, run_pending_message(run));
    run_trace_end(run, error, run_pending_message(run));
    log_end(run, error);
    TAILQ_REMOVE(&host->runs, run, link);
    host->run_count--;
    event_del(run->deadline);
    agent_output_stop(&run->output);
    event_active(run->deferred, 0, 0); /* freed from the loop: a caller may still look at it */
}

void run_end_unheard(struct run *run)
{
    run_set_pending(run, RUN_ERROR_INTERNAL, "out of memory");
    (void)close_record(run, RUN_ERROR_INTERNAL);
}

void run_free(struct run *run)
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
    run_trace_free(run);
    agent_output_release(&run->output);
    if (run->deadline != NULL)
        event_free(run->deadline);
    if (run->deferred != NULL)
        event_free(run->deferred);
    free(run->pending_message);
    free(run->model);
    free(run);
}
