/*
 * telemetry_options: what the environment says about telemetry: the variables of the OpenTelemetry specification
 * (Environment Variable Specification; OTLP exporter configuration), and SANDSTORM_TELEMETRY.
 *
 * A value that cannot be used is told of and left out, as that specification wants: telemetry never keeps a server from
 * starting.
 */
#ifndef WORKER_TELEMETRY_OPTIONS_H
#define WORKER_TELEMETRY_OPTIONS_H

#include "common/environment.h"
#include "worker/trace_context.h"

#include <curl/curl.h>

enum telemetry_signal { TELEMETRY_TRACES, TELEMETRY_METRICS, TELEMETRY_SIGNALS };

/* Where one signal goes. */
struct telemetry_endpoint {
    char *url;                  /* may hold user:password; NULL: the signal is not sent */
    struct curl_slist *headers; /* "Name: value"; secret */
    int64_t timeout_ms;         /* of one request */
};

/* Which traces that begin here are sent. */
struct telemetry_sampler {
    bool is_parent_based; /* a trace of the caller's is sent when the caller sends it */
    bool takes_all;
    uint64_t below; /* else: those whose id's lower half is below this */
};

struct telemetry_options {
    struct telemetry_endpoint endpoints[TELEMETRY_SIGNALS];
    struct telemetry_sampler sampler;
    char *ca_file;  /* whom collectors are trusted by; "": the system's bundle */
    char *resource; /* the Resource of OTLP, as JSON */
    int64_t metric_interval_ms;
    int64_t span_delay_ms; /* a span waits no longer for others */
    int64_t span_queue_max;
    int64_t span_batch_max;
};

/* Hears what cannot be used, and why; no value is in it. NULL: nobody does. */
typedef void telemetry_fault(const char *variable, const char *reason);

/* NULL when telemetry is off, and for lack of memory. instance: of this server, for the resource. */
struct telemetry_options *telemetry_options_read(const struct environment *environment, const char *instance,
                                                 telemetry_fault *on_fault) __attribute__((warn_unused_result));
void telemetry_options_free(struct telemetry_options *options); /* NULL is allowed */

/* "traces" */
const char *telemetry_signal_name(enum telemetry_signal signal);

/* Is a new trace of this id, or the caller's (NULL or not valid: there is none), to be sent? */
bool telemetry_sampler_takes(const struct telemetry_sampler *sampler, const struct trace_context *caller,
                             const uint8_t trace_id[static TRACE_ID_BYTES]);

#endif
