/*
 * stderr_text: the agent's stderr, gathered into the text of `stderr` events (http-api.md 5.4).
 *
 * Complete lines that are available together become one text; an unterminated rest waits for its LF, for
 * STDERR_WAIT_MS, for STDERR_REST_MAX_BYTES, or for the end, and is never cut inside a UTF-8 sequence.
 */
#ifndef WORKER_STDERR_TEXT_H
#define WORKER_STDERR_TEXT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define STDERR_REST_MAX_BYTES 32768
#define STDERR_WAIT_MS        1000

struct stderr_text {
    char *bytes;
    size_t length;
    size_t capacity;
};

bool stderr_text_append(struct stderr_text *text, const char *bytes, size_t length) __attribute__((warn_unused_result));
void stderr_text_release(struct stderr_text *text);

/*
 * Takes the complete lines, or everything: a {"type":"stderr","data":…} event, trimmed, invalid bytes as U+FFFD; NULL
 * when there is nothing but blanks.
 */
json_t *stderr_text_take_lines(struct stderr_text *text) __attribute__((warn_unused_result));
json_t *stderr_text_take_all(struct stderr_text *text) __attribute__((warn_unused_result));
/* As take_all, but an unfinished UTF-8 sequence at the end stays. */
json_t *stderr_text_take_rest(struct stderr_text *text) __attribute__((warn_unused_result));

/* A JSON string of bytes that may not be UTF-8: what is invalid becomes U+FFFD. NULL for lack of memory. */
json_t *json_lossy_string(const char *bytes, size_t length) __attribute__((warn_unused_result));

#endif
