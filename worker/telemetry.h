/*
 * telemetry: spans and metrics of one worker on their way to a collector, by OTLP/HTTP with JSON.
 *
 * Nobody waits for it: spans stand in a queue of bounded length and are sent in batches, one request at a time; what
 * finds the queue full is dropped and counted (sandstorm_telemetry_dropped_total). Metrics are those of the whole
 * instance, sent by the one worker that was chosen.
 *
 * It has connections of its own, so that a slow collector takes none from the sandbox service.
 */
#ifndef WORKER_TELEMETRY_H
#define WORKER_TELEMETRY_H

#include "common/scoreboard.h"
#include "worker/otlp.h"
#include "worker/telemetry_options.h"

#include <event2/event.h>

struct telemetry;

/* Longest that a worker which has nothing else to do waits for a collector. */
#define TELEMETRY_FLUSH_MS 5000

struct telemetry_context {
    struct event_base *base;
    const struct scoreboard *scoreboard;
    /* After telemetry_flush() was false: there is nothing left, or no time. */
    void (*on_flushed)(void *context);
    void *context;
};

/* Takes the options over, which may be NULL: then there is no telemetry, as for lack of memory. */
struct telemetry *telemetry_new(struct telemetry_options *options, const struct telemetry_context *context)
    __attribute__((warn_unused_result));
void telemetry_free(struct telemetry *telemetry); /* NULL is allowed, as everywhere here */

/* Who decides which traces are sent. */
const struct telemetry_sampler *telemetry_sampler_of(const struct telemetry *telemetry);
/* A span of a sampled trace has ended. May be called from inside libcurl. */
void telemetry_add(struct telemetry *telemetry, const struct otlp_span *span);

/* This worker sends the instance's metrics, from now on until it resigns or ends. */
void telemetry_elect(struct telemetry *telemetry);
void telemetry_resign(struct telemetry *telemetry);

/*
 * Is everything sent, or given up? The first call begins to send what there is, with the last metrics, within
 * TELEMETRY_FLUSH_MS.
 */
bool telemetry_flush(struct telemetry *telemetry);

/* Says in the log what will be sent where, and which variables cannot be used; nothing when it is off. */
void telemetry_check(const struct environment *environment);

#endif
