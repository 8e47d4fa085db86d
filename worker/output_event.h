/*
 * output_event: what nearly all envelopes of a process stream hold (e2b.md 0.9), found without a tree:
 *
 *     {"event":{"data":{"stdout":"<base64>"}}}
 *
 * Pure. Cost: a pass over the text by memchr(3), where a JSON parser takes 200 instructions a byte.
 */
#ifndef WORKER_OUTPUT_EVENT_H
#define WORKER_OUTPUT_EVENT_H

#include <stdbool.h>
#include <stddef.h>

struct output_event {
    const char *text; /* in the payload: base64, not looked into but for quotes and escapes */
    size_t length;
    bool is_stderr;
};

/*
 * True when the payload has just this shape, with stdout or stderr, blanks as JSON allows them, and no escape. Anything
 * else, right or wrong, is for a parser.
 */
bool output_event_read(const char *payload, size_t length, struct output_event *event)
    __attribute__((warn_unused_result));

#endif
