#include "worker/trace_span.h"

#include "common/clock.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct trace_span {
    struct telemetry *telemetry;
    const char *name;
    struct trace_context context;
    uint8_t parent_id[SPAN_ID_BYTES];
    int64_t start_us;
};

struct trace_span *trace_span_begin(struct telemetry *telemetry, const struct trace_context *parent, const char *name)
{
    struct trace_span *span = malloc(sizeof *span);

    if (span == NULL)
        return NULL;
    *span = (struct trace_span){.telemetry = telemetry, .name = name, .context = *parent, .start_us = realtime_us()};
    memcpy(span->parent_id, parent->span_id, SPAN_ID_BYTES);
    if (getrandom(span->context.span_id, SPAN_ID_BYTES, 0) == SPAN_ID_BYTES)
        return span;
    free(span);
    return NULL;
}

void trace_span_end(struct trace_span *span, const char *sandbox_id, const char *error, const char *message)
{
    const struct otlp_attribute attribute = {"sandstorm.sandbox_id", OTLP_STRING, {.string = sandbox_id}};
    int64_t now_us;

    if (span == NULL)
        return;
    now_us = realtime_us();
    telemetry_add(span->telemetry, &(struct otlp_span){.name = span->name,
                                                       .kind = OTLP_KIND_CLIENT,
                                                       .context = &span->context,
                                                       .parent_id = span->parent_id,
                                                       .start_us = span->start_us,
                                                       .end_us = now_us > span->start_us ? now_us : span->start_us,
                                                       .attributes = &attribute,
                                                       .attribute_count = 1,
                                                       .error = error,
                                                       .error_message = message});
    free(span);
}

void trace_span_free(struct trace_span *span)
{
    free(span);
}
