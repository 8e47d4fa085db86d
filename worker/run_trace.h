/*
 * run_trace: the spans of one run: `query`, a child of its caller's span or the first of a new trace, and below it what
 * the run waits for, one after the other. Attributes have the names of the Python server.
 *
 * Off (no telemetry in the host), a run has no trace, and each call here is one look at a NULL pointer.
 */
#ifndef WORKER_RUN_TRACE_H
#define WORKER_RUN_TRACE_H

#include "worker/run_error.h"
#include "worker/trace_context.h"

#include <jansson.h>

struct run;
struct run_trace;
struct trace_span;

enum run_stage {
    RUN_STAGE_NONE,
    RUN_STAGE_CREATE,
    RUN_STAGE_UPLOAD,
    RUN_STAGE_INSTALL, /* the SDK, where the template lacks it */
    RUN_STAGE_EXECUTE,
    RUN_STAGE_COLLECT,
    RUN_STAGE_COUNT
};

/* At the admission. trigger: NULL for a run that has none; a name that outlives the run. */
void run_trace_begin(struct run *run, const struct trace_context *caller, const char *trigger);
/* TRACEPARENT and TRACESTATE for the sandbox: what the agent does is below the span agent.execute. */
void run_trace_put_env(const struct run *run, json_t *env);
/* The stage of now is over, well or with an error, and another one begins, or none. */
void run_trace_stage(struct run *run, enum run_stage next, enum run_error error, const char *message);
/* The run has ended, its record is final: the span `query` too. */
void run_trace_end(struct run *run, enum run_error error, const char *message);
/* The span of the deletion begins; the caller's. NULL: none. */
struct trace_span *run_trace_cleanup(const struct run *run);
void run_trace_free(struct run *run);

#endif
