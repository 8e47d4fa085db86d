/*
 * agent_stream: the agent's process in its sandbox, from Process/Start to its end (http-api.md 6.9, e2b.md A.3).
 *
 * Ends once, with on_exit or on_lost, always from the loop. Output comes from inside libcurl: its handler may pause,
 * resume or cancel the stream, and may not start requests; on_output_end comes after it, from outside.
 */
#ifndef WORKER_AGENT_STREAM_H
#define WORKER_AGENT_STREAM_H

#include "common/metrics.h"
#include "worker/e2b.h"

struct agent_stream;

struct agent_stream_handlers {
    void (*on_start)(void *context, int64_t pid);
    /* At least one byte. */
    void (*on_output)(void *context, bool is_stderr, const char *bytes, size_t length);
    /* All output that was there has been given: time to flush. NULL: not wanted. */
    void (*on_output_end)(void *context);
    /* The process ended; status is envd's text ("exit status 3", "signal: killed"). */
    void (*on_exit)(void *context, int exit_code, const char *status);
    /* The stream ended without the process's end. */
    void (*on_lost)(void *context, enum run_error error, const char *message);
    void *context;
};

struct agent_stream_request {
    const char *command; /* for /bin/bash -l -c */
    bool as_root;
    enum metric_operation counted_as; /* not set: METRIC_OPERATION_START */
    int64_t start_timeout_ms;
    int64_t idle_timeout_ms; /* not even a keepalive; stands still while paused */
    struct agent_stream_handlers handlers;
};

/* NULL for lack of memory, without a callback. The sandbox must outlive the stream. */
struct agent_stream *agent_stream_open(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                       const struct agent_stream_request *request) __attribute__((warn_unused_result));
/* Ends it without a callback. NULL is allowed. */
void agent_stream_cancel(struct agent_stream *stream);

/* In on_lost: the process ran, and its stream just ended or fell silent, as it does at a sandbox's end of life. */
bool agent_stream_stopped(const struct agent_stream *stream);

void agent_stream_pause(struct agent_stream *stream);
void agent_stream_resume(struct agent_stream *stream);

#endif
