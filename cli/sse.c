#include "cli/sse.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096

static bool append(struct sse_bytes *to, const char *bytes, size_t length)
{
    size_t capacity = to->capacity > 0 ? to->capacity : FIRST_CAPACITY;
    char *larger;

    if (length > SSE_EVENT_MAX_BYTES - to->length)
        return false;
    while (capacity < to->length + length + 1)
        capacity *= 2;
    if (capacity != to->capacity) {
        larger = realloc(to->bytes, capacity);
        if (larger == NULL)
            return false;
        to->bytes = larger;
        to->capacity = capacity;
    }
    memcpy(to->bytes + to->length, bytes, length);
    to->length += length;
    to->bytes[to->length] = '\0';
    return true;
}

static bool take_data(struct sse *sse, const char *value, size_t length)
{
    if (length > 0 && *value == ' ') {
        value++;
        length--;
    }
    if (sse->has_data && !append(&sse->event, "\n", 1))
        return false;
    sse->has_data = true;
    return append(&sse->event, value, length);
}

/* A blank line ends an event, if there is one. */
static bool end_event(struct sse *sse, sse_event on_event, void *context)
{
    bool goes_on = !sse->has_data || on_event(context, sse->event.bytes, sse->event.length);

    sse->has_data = false;
    sse->event.length = 0;
    return goes_on;
}

static bool take_line(struct sse *sse, sse_event on_event, void *context)
{
    static const char field[] = "data";
    size_t name = sizeof field - 1, length = sse->line.length;
    const char *line = sse->line.bytes;

    sse->line.length = 0;
    if (length == 0)
        return end_event(sse, on_event, context);
    if (length == name && memcmp(line, field, name) == 0)
        return take_data(sse, "", 0);
    if (length > name && memcmp(line, field, name) == 0 && line[name] == ':')
        return take_data(sse, line + name + 1, length - name - 1);
    return true;
}

bool sse_read(struct sse *sse, const char *bytes, size_t length, sse_event on_event, void *context)
{
    while (length > 0) {
        size_t n = 0;

        if (sse->after_cr && *bytes == '\n') { /* of a CRLF */
            sse->after_cr = false;
            bytes++;
            length--;
            continue;
        }
        while (n < length && bytes[n] != '\n' && bytes[n] != '\r')
            n++;
        if (!append(&sse->line, bytes, n))
            return false;
        sse->after_cr = n < length && bytes[n] == '\r';
        if (n < length && !take_line(sse, on_event, context))
            return false;
        n += n < length ? 1 : 0;
        bytes += n;
        length -= n;
    }
    return true;
}

void sse_release(struct sse *sse)
{
    free(sse->line.bytes);
    free(sse->event.bytes);
}
