/*
 * sse: a stream of Server-Sent Events as the payloads of its events (http-api.md 5.2; the WHATWG's grammar: a line ends
 * with LF, CR or CRLF, comments and other fields are skipped, `data` lines of an event are joined by LF).
 */
#ifndef CLI_SSE_H
#define CLI_SSE_H

#include <stdbool.h>
#include <stddef.h>

/* A longer event ends the reading: a file of 25 MiB takes 34. */
#define SSE_EVENT_MAX_BYTES (128u << 20)

struct sse_bytes {
    char *bytes;
    size_t length;
    size_t capacity;
};

struct sse {
    struct sse_bytes line; /* not yet complete */
    struct sse_bytes event;
    bool has_data;
    bool after_cr;
};

/* payload has a NUL behind it, and is the reader's. Returning false ends the reading. */
typedef bool (*sse_event)(void *context, const char *payload, size_t length);

/* Reads a piece. False when the reader wants no more, an event is too long or memory is short. */
bool sse_read(struct sse *sse, const char *bytes, size_t length, sse_event on_event, void *context)
    __attribute__((warn_unused_result));
void sse_release(struct sse *sse);

#endif
