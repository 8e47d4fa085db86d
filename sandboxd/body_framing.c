#include "sandboxd/body_framing.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define LINE_MAX_BYTES    4096
#define TRAILER_LINES_MAX 64
#define SIZE_DIGITS_MAX   15

void body_framing_begin(struct body_framing *framing, bool is_chunked, uint64_t length)
{
    *framing = (struct body_framing){.is_chunked = is_chunked, .left = length};
    framing->state = is_chunked ? BODY_SIZE : length > 0 ? BODY_BYTES : BODY_WHOLE;
}

/* Reads "<hex>[;…]"; false when it is something else. */
static bool read_size(const char *line, uint64_t *size)
{
    size_t digits = strspn(line, "0123456789abcdefABCDEF");
    const char *rest = line + digits;

    if (digits == 0 || digits > SIZE_DIGITS_MAX)
        return false;
    *size = strtoull(line, NULL, 16);
    rest += strspn(rest, " \t");
    return *rest == '\0' || *rest == ';';
}

/* Takes one line of the framing; what comes behind it. */
static enum body_state take_line(struct body_framing *framing, const char *line)
{
    switch (framing->state) {
    case BODY_SIZE:
        if (!read_size(line, &framing->left))
            return BODY_MALFORMED;
        return framing->left > 0 ? BODY_BYTES : BODY_TRAILER;
    case BODY_LINE_END:
        return *line == '\0' ? BODY_SIZE : BODY_MALFORMED;
    case BODY_TRAILER:
        if (*line == '\0')
            return BODY_WHOLE;
        return ++framing->trailer_lines < TRAILER_LINES_MAX ? BODY_TRAILER : BODY_MALFORMED;
    case BODY_BYTES:
    case BODY_WHOLE:
    case BODY_MALFORMED:
        break;
    }
    return BODY_MALFORMED;
}

/* Moves the bytes that are there. */
static void take_bytes(struct body_framing *framing, struct evbuffer *raw, struct evbuffer *body)
{
    size_t there = evbuffer_get_length(raw);
    size_t count = framing->left < there ? (size_t)framing->left : there;

    if (body != NULL)
        evbuffer_remove_buffer(raw, body, count);
    else
        evbuffer_drain(raw, count);
    framing->left -= count;
    if (framing->left == 0)
        framing->state = framing->is_chunked ? BODY_LINE_END : BODY_WHOLE;
}

void body_framing_take(struct body_framing *framing, struct evbuffer *raw, struct evbuffer *body)
{
    while (framing->state != BODY_WHOLE && framing->state != BODY_MALFORMED && evbuffer_get_length(raw) > 0) {
        size_t length;
        char *line;

        if (framing->state == BODY_BYTES) {
            take_bytes(framing, raw, body);
            continue;
        }
        line = evbuffer_readln(raw, &length, EVBUFFER_EOL_CRLF_STRICT);
        if (line == NULL)
            length = evbuffer_get_length(raw);
        /* Also of a line that is all there: what is malformed does not depend on how it comes. One byte may be its CR.
         */
        if (length > LINE_MAX_BYTES + (line == NULL))
            framing->state = BODY_MALFORMED;
        else if (line != NULL)
            framing->state = strlen(line) == length ? take_line(framing, line) : BODY_MALFORMED;
        free(line);
        if (line == NULL)
            return;
    }
}
