#include "worker/trace_context.h"

#include "worker/span.h"

#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <strings.h>

#define PARENT_HEADER   "traceparent"
#define STATE_HEADER    "tracestate"
#define VERSION_INVALID 0xff
#define FLAG_SAMPLED    1u
#define VERSION_AT      0
#define TRACE_ID_AT     3
#define SPAN_ID_AT      36
#define FLAGS_AT        53
#define HEX_CHARS       "0123456789abcdef"

void trace_hex(const uint8_t *bytes, unsigned count, char *out)
{
    for (unsigned i = 0; i < count; i++) {
        out[2 * i] = HEX_CHARS[bytes[i] >> 4];
        out[2 * i + 1] = HEX_CHARS[bytes[i] & 15];
    }
    out[2 * count] = '\0';
}

/* Upper case is not allowed. */
static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hex(const char *text, unsigned count, uint8_t *bytes)
{
    for (unsigned i = 0; i < count; i++) {
        int high = hex_value(text[2 * i]), low = high < 0 ? -1 : hex_value(text[2 * i + 1]);

        if (low < 0)
            return false;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool is_zero(const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

bool trace_context_parse(struct trace_context *context, const char *traceparent)
{
    struct span text = span_trim((struct span){traceparent, strlen(traceparent)});
    const char *at = text.bytes;
    uint8_t version, flags;

    *context = (struct trace_context){.is_valid = false};
    if (text.length < TRACE_PARENT_CHARS || at[TRACE_ID_AT - 1] != '-' || at[SPAN_ID_AT - 1] != '-' ||
        at[FLAGS_AT - 1] != '-')
        return false;
    if (!read_hex(at + VERSION_AT, 1, &version) || version == VERSION_INVALID ||
        !read_hex(at + TRACE_ID_AT, TRACE_ID_BYTES, context->trace_id) ||
        !read_hex(at + SPAN_ID_AT, SPAN_ID_BYTES, context->span_id) || !read_hex(at + FLAGS_AT, 1, &flags))
        return false;
    if (text.length > TRACE_PARENT_CHARS && (version == 0 || at[TRACE_PARENT_CHARS] != '-'))
        return false;
    context->is_sampled = (flags & FLAG_SAMPLED) != 0;
    context->is_valid = !is_zero(context->trace_id, TRACE_ID_BYTES) && !is_zero(context->span_id, SPAN_ID_BYTES);
    return context->is_valid;
}

/* Another field of the list; false when it cannot be passed on as it is. */
static bool add_state(struct trace_context *context, struct span value)
{
    size_t used = strlen(context->state);
    const char *comma = used > 0 ? "," : "";

    for (size_t i = 0; i < value.length; i++) {
        if ((value.bytes[i] < ' ' && value.bytes[i] != '\t') || value.bytes[i] > '~')
            return false;
    }
    if (used + strlen(comma) + value.length > TRACE_STATE_MAX_BYTES)
        return false;
    snprintf(context->state + used, sizeof context->state - used, "%s%.*s", comma, (int)value.length, value.bytes);
    return true;
}

static void read_state(struct trace_context *context, const struct evkeyvalq *headers)
{
    const struct evkeyval *header;

    for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next) {
        struct span value = span_trim((struct span){header->value, strlen(header->value)});

        if (strcasecmp(header->key, STATE_HEADER) != 0 || value.length == 0 || add_state(context, value))
            continue;
        context->state[0] = '\0';
        return;
    }
}

void trace_context_read(struct trace_context *context, const struct evkeyvalq *headers)
{
    const struct evkeyval *header;
    const char *parent = NULL;
    unsigned count = 0;

    *context = (struct trace_context){.is_valid = false};
    for (header = headers->tqh_first; header != NULL; header = header->next.tqe_next) {
        if (strcasecmp(header->key, PARENT_HEADER) != 0)
            continue;
        parent = header->value;
        count++;
    }
    if (count == 1 && trace_context_parse(context, parent))
        read_state(context, headers);
}

void trace_context_format(const struct trace_context *context, char out[static TRACE_PARENT_CHARS + 1])
{
    char trace_id[2 * TRACE_ID_BYTES + 1], span_id[2 * SPAN_ID_BYTES + 1];

    trace_hex(context->trace_id, TRACE_ID_BYTES, trace_id);
    trace_hex(context->span_id, SPAN_ID_BYTES, span_id);
    snprintf(out, TRACE_PARENT_CHARS + 1, "00-%s-%s-%02x", trace_id, span_id, context->is_sampled ? FLAG_SAMPLED : 0u);
}
