/*
 * otlp: spans and metrics in the JSON of OTLP/HTTP (OpenTelemetry Protocol 1.x: the protobuf JSON mapping with
 * lowerCamelCase names, ids in hexadecimal, 64-bit integers as strings, enumerations as numbers).
 *
 * A request is the head, entries with commas between them, and the tail.
 */
#ifndef WORKER_OTLP_H
#define WORKER_OTLP_H

#include "common/scoreboard.h"
#include "worker/telemetry_options.h"

#include <event2/buffer.h>

/* Longer texts are cut there, between characters. */
#define OTLP_TEXT_MAX_BYTES 256

enum otlp_type { OTLP_STRING, OTLP_INTEGER, OTLP_REAL, OTLP_BOOLEAN };

struct otlp_attribute {
    const char *key;
    enum otlp_type type;
    union {
        const char *string; /* bytes that are no UTF-8 become U+FFFD */
        int64_t integer;
        double real;
        bool boolean;
    };
};

/* The values are the protocol's. */
enum otlp_span_kind { OTLP_KIND_INTERNAL = 1, OTLP_KIND_SERVER = 2, OTLP_KIND_CLIENT = 3 };

/* A span that has ended; nothing of it is kept. */
struct otlp_span {
    const char *name;
    enum otlp_span_kind kind;
    const struct trace_context *context; /* its own place; sampled */
    const uint8_t *parent_id;            /* NULL: the first of its trace */
    bool has_remote_parent;
    int64_t start_us; /* CLOCK_REALTIME */
    int64_t end_us;
    const struct otlp_attribute *attributes;
    size_t attribute_count;
    const char *error;         /* its code; NULL: it went well */
    const char *error_message; /* "": none */
};

bool otlp_write_span(struct evbuffer *out, const struct otlp_span *span) __attribute__((warn_unused_result));

/* Every metric of the scoreboard that has counted, at this time (CLOCK_REALTIME); how many series is in *count. */
bool otlp_write_metrics(struct evbuffer *out, const struct scoreboard *scoreboard, int64_t now_us, size_t *count)
    __attribute__((warn_unused_result));

/* What stands around the entries of a request. resource: telemetry_options'. */
bool otlp_write_head(struct evbuffer *out, enum telemetry_signal signal, const char *resource)
    __attribute__((warn_unused_result));
bool otlp_write_tail(struct evbuffer *out) __attribute__((warn_unused_result));

/* --- for otlp_metrics.c --- */

bool otlp_write_attributes(struct evbuffer *out, const struct otlp_attribute *attributes, size_t count)
    __attribute__((warn_unused_result));

#endif
