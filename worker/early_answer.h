/*
 * early_answer: a whole answer written without evhttp: right after the head, or instead of the rest of a body. The
 * connection ends after it.
 */
#ifndef WORKER_EARLY_ANSWER_H
#define WORKER_EARLY_ANSWER_H

#include <event2/buffer.h>
#include <stdbool.h>

#define RETRY_AFTER_BUFFER 16

struct early_answer {
    int status;
    bool head_only;           /* the request was HEAD */
    const char *content_type; /* NULL: application/json */
    const char *body;
    struct evbuffer *fields; /* further header lines, drained; NULL: none */
};

void early_answer_write(struct evbuffer *output, const struct early_answer *answer);

/* The reason phrase of a status the server uses; "Unknown" for others. */
const char *http_reason(int status);
/* A Retry-After: whole seconds, 1 to 30, at random, so that refused clients do not return together. */
void retry_after(char seconds[static RETRY_AFTER_BUFFER]);

#endif
