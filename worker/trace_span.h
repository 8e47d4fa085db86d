/*
 * trace_span: a span that outlives the run it belongs to: the deletion of its sandbox.
 */
#ifndef WORKER_TRACE_SPAN_H
#define WORKER_TRACE_SPAN_H

#include "worker/telemetry.h"

struct trace_span;

/*
 * Begins a child of the parent's place, in a trace that is sent. The name is static. NULL for lack of memory: then it
 * is not sent.
 */
struct trace_span *trace_span_begin(struct telemetry *telemetry, const struct trace_context *parent, const char *name);

/* Ends it, well (error NULL) or not. The sandbox is its attribute. Frees it; NULL is allowed, as in the next. */
void trace_span_end(struct trace_span *span, const char *sandbox_id, const char *error, const char *message);
/* There was nothing to do: it is not sent. */
void trace_span_free(struct trace_span *span);

#endif
