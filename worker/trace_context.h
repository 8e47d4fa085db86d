/*
 * trace_context: who asks, in a distributed trace: the headers traceparent and tracestate of W3C Trace Context,
 * level 1.
 */
#ifndef WORKER_TRACE_CONTEXT_H
#define WORKER_TRACE_CONTEXT_H

#include <stdbool.h>
#include <stdint.h>

struct evkeyvalq;

#define TRACE_ID_BYTES        16
#define SPAN_ID_BYTES         8
#define TRACE_PARENT_CHARS    55  /* 00-<32 hex>-<16 hex>-<2 hex> */
#define TRACE_STATE_MAX_BYTES 512 /* what everybody has to pass on; a longer one is left out */

/* A place in a trace. */
struct trace_context {
    bool is_valid; /* false: there is none, and the rest says nothing */
    uint8_t trace_id[TRACE_ID_BYTES];
    uint8_t span_id[SPAN_ID_BYTES];
    bool is_sampled;
    char state[TRACE_STATE_MAX_BYTES + 1]; /* printable ASCII; "": none */
};

/* Of a request's headers. Anything but one good traceparent is as if there was none, and a tracestate goes with it. */
void trace_context_read(struct trace_context *context, const struct evkeyvalq *headers);
/* As trace_context_read(), of the header's value alone. Versions above 00 may say more than is understood. */
bool trace_context_parse(struct trace_context *context, const char *traceparent) __attribute__((warn_unused_result));
/* The value of a traceparent of version 00. */
void trace_context_format(const struct trace_context *context, char out[static TRACE_PARENT_CHARS + 1]);

/* Lower-case hexadecimal digits, with a final NUL. */
void trace_hex(const uint8_t *bytes, unsigned count, char *out);

#endif
