#include "worker/otlp.h"

#include "common/utf8_cut.h"
#include "worker/json_text.h"
#include "worker/number_text.h"
#include "worker/stderr_text.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* Flags of a span: the eight of W3C, and whether its parent's place is known. */
#define FLAG_SAMPLED       0x001u
#define FLAG_REMOTE_KNOWN  0x100u
#define FLAG_REMOTE_PARENT 0x200u
#define STATUS_ERROR       2
#define SCOPE              "{\"name\":\"sandstorm\",\"version\":\"" SANDSTORM_VERSION "\"}"

static bool add(struct evbuffer *out, const char *text)
{
    return evbuffer_add(out, text, strlen(text)) == 0;
}

static bool write_text(struct evbuffer *out, const char *text)
{
    json_t *clean = json_lossy_string(text, utf8_cut(text, strlen(text), OTLP_TEXT_MAX_BYTES));
    bool good = clean != NULL && json_text_write_string(out, json_string_value(clean), json_string_length(clean));

    json_decref(clean);
    return good;
}

static bool write_real(struct evbuffer *out, double real)
{
    char text[NUMBER_TEXT_BYTES];

    return add(out, isfinite(real) ? number_text(real, text) : "0");
}

/* --- attributes -------------------------------------------------------------------------------------------- */

static bool write_value(struct evbuffer *out, const struct otlp_attribute *attribute)
{
    switch (attribute->type) {
    case OTLP_STRING:
        return add(out, "\"stringValue\":") && write_text(out, attribute->string);
    case OTLP_INTEGER:
        return evbuffer_add_printf(out, "\"intValue\":\"%" PRId64 "\"", attribute->integer) > 0;
    case OTLP_REAL:
        return add(out, "\"doubleValue\":") && write_real(out, attribute->real);
    case OTLP_BOOLEAN:
    default:
        return add(out, attribute->boolean ? "\"boolValue\":true" : "\"boolValue\":false");
    }
}

bool otlp_write_attributes(struct evbuffer *out, const struct otlp_attribute *attributes, size_t count)
{
    bool good = add(out, "\"attributes\":[");

    for (size_t i = 0; i < count && good; i++)
        good = add(out, i > 0 ? ",{\"key\":" : "{\"key\":") && write_text(out, attributes[i].key) &&
               add(out, ",\"value\":{") && write_value(out, &attributes[i]) && add(out, "}}");
    return good && add(out, "]");
}

/* --- spans ------------------------------------------------------------------------------------------------- */

static bool write_place(struct evbuffer *out, const struct otlp_span *span)
{
    unsigned flags = FLAG_SAMPLED | FLAG_REMOTE_KNOWN | (span->has_remote_parent ? FLAG_REMOTE_PARENT : 0);
    char trace_id[2 * TRACE_ID_BYTES + 1], span_id[2 * SPAN_ID_BYTES + 1];

    trace_hex(span->context->trace_id, TRACE_ID_BYTES, trace_id);
    trace_hex(span->context->span_id, SPAN_ID_BYTES, span_id);
    if (evbuffer_add_printf(out, "\"traceId\":\"%s\",\"spanId\":\"%s\",\"flags\":%u", trace_id, span_id, flags) < 0)
        return false;
    if (*span->context->state != '\0' &&
        !(add(out, ",\"traceState\":") &&
          json_text_write_string(out, span->context->state, strlen(span->context->state))))
        return false;
    if (span->parent_id == NULL)
        return true;
    trace_hex(span->parent_id, SPAN_ID_BYTES, span_id);
    return evbuffer_add_printf(out, ",\"parentSpanId\":\"%s\"", span_id) > 0;
}

/* As the semantic conventions for exceptions have it. */
static bool write_error(struct evbuffer *out, const struct otlp_span *span)
{
    const struct otlp_attribute attributes[] = {
        {"exception.type", OTLP_STRING, {.string = span->error}},
        {"exception.message", OTLP_STRING, {.string = span->error_message}},
    };

    return evbuffer_add_printf(out, ",\"events\":[{\"timeUnixNano\":\"%" PRId64 "000\",\"name\":\"exception\",",
                               span->end_us) > 0 &&
           otlp_write_attributes(out, attributes, *span->error_message != '\0' ? 2 : 1) &&
           evbuffer_add_printf(out, "}],\"status\":{\"code\":%d,\"message\":", STATUS_ERROR) > 0 &&
           write_text(out, *span->error_message != '\0' ? span->error_message : span->error) && add(out, "}");
}

bool otlp_write_span(struct evbuffer *out, const struct otlp_span *span)
{
    return add(out, "{") && write_place(out, span) && add(out, ",\"name\":") && write_text(out, span->name) &&
           evbuffer_add_printf(
               out, ",\"kind\":%d,\"startTimeUnixNano\":\"%" PRId64 "000\",\"endTimeUnixNano\":\"%" PRId64 "000\",",
               (int)span->kind, span->start_us, span->end_us) > 0 &&
           otlp_write_attributes(out, span->attributes, span->attribute_count) &&
           (span->error == NULL || write_error(out, span)) && add(out, "}");
}

/* --- requests ---------------------------------------------------------------------------------------------- */

bool otlp_write_head(struct evbuffer *out, enum telemetry_signal signal, const char *resource)
{
    bool traces = signal == TELEMETRY_TRACES;

    return add(out, traces ? "{\"resourceSpans\":[{\"resource\":" : "{\"resourceMetrics\":[{\"resource\":") &&
           add(out, resource) &&
           add(out, traces ? ",\"scopeSpans\":[{\"scope\":" SCOPE ",\"spans\":["
                           : ",\"scopeMetrics\":[{\"scope\":" SCOPE ",\"metrics\":[");
}

bool otlp_write_tail(struct evbuffer *out)
{
    return add(out, "]}]}]}");
}
