/*
 * cors: which web pages may read our answers (http-api.md 2.4). Pure; writes header lines into an evbuffer.
 */
#ifndef WORKER_CORS_H
#define WORKER_CORS_H

#include "worker/span.h"

#include <event2/buffer.h>

struct cors;

/* origins: comma-separated list or *, "" counts as *. NULL for lack of memory. */
struct cors *cors_new(const char *origins) __attribute__((warn_unused_result));
void cors_free(struct cors *cors);

/*
 * The value of Access-Control-Allow-Origin for an origin: "*", or the entry of the list it equals; NULL: none. Lives as
 * long as cors. Any other value than "*" goes with `Vary: Origin`.
 */
const char *cors_allow_origin(const struct cors *cors, struct span origin);

/* Header fields of any answer but a preflight's, for what cors_allow_origin() gave; returns how many. */
#define CORS_FIELDS_MAX 3
struct cors_field {
    const char *name, *value;
};
size_t cors_fields(const char *allow_origin, struct cors_field fields[static CORS_FIELDS_MAX]);

/* What a preflight asks for; absent members were not asked for. */
struct cors_preflight {
    struct span origin;
    struct span method;
    struct span headers;
    struct span private_network;
};

/* The answer to a preflight: its status, its header lines into `headers`, its text into body[]. */
#define CORS_BODY_MAX_BYTES 64
int cors_answer_preflight(const struct cors *cors, const struct cors_preflight *preflight, struct evbuffer *headers,
                          char body[static CORS_BODY_MAX_BYTES]);

#endif
