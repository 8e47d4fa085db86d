/*
 * span: a piece of text inside a buffer that somebody else owns. Not terminated; bytes NULL: there is none.
 */
#ifndef WORKER_SPAN_H
#define WORKER_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

struct span {
    const char *bytes;
    size_t length;
};

static inline bool span_is(struct span span, const char *text)
{
    return span.bytes != NULL && span.length == strlen(text) && memcmp(span.bytes, text, span.length) == 0;
}

static inline bool span_is_caseless(struct span span, const char *text)
{
    return span.bytes != NULL && span.length == strlen(text) && strncasecmp(span.bytes, text, span.length) == 0;
}

/* Without blanks and tabs at both ends. */
static inline struct span span_trim(struct span span)
{
    while (span.length > 0 && (*span.bytes == ' ' || *span.bytes == '\t')) {
        span.bytes++;
        span.length--;
    }
    while (span.length > 0 && (span.bytes[span.length - 1] == ' ' || span.bytes[span.length - 1] == '\t'))
        span.length--;
    return span;
}

/* Takes the next piece of a list off its front; false at the end. */
static inline bool span_next(struct span *list, char separator, struct span *piece)
{
    const char *end;

    if (list->bytes == NULL)
        return false;
    end = memchr(list->bytes, separator, list->length);
    *piece = (struct span){list->bytes, end != NULL ? (size_t)(end - list->bytes) : list->length};
    if (end == NULL)
        *list = (struct span){NULL, 0};
    else
        *list = (struct span){end + 1, list->length - piece->length - 1};
    return true;
}

#endif
