/*
 * trigger_prompt: the prompt of a trigger, with what the request brought in its {{ places }} (http-api.md section 14).
 *
 * A place is {{ body.a.b }} or {{ headers.name }}: members by their keys, elements by their numbers. What is put there
 * is wrapped in <trigger_value path="…">, with &, < and > escaped, so that a prompt can tell it from its own words.
 */
#ifndef WORKER_TRIGGER_PROMPT_H
#define WORKER_TRIGGER_PROMPT_H

#include "worker/json_text.h"

#include <event2/http.h>

/* What a request brought; all absent for a schedule. */
struct trigger_sources {
    struct json_text body;           /* start NULL: none */
    const struct evkeyvalq *headers; /* NULL: none. Those with keys or cookies are never given out */
};

/* The secret of a webhook trigger comes in this header. */
#define TRIGGER_SECRET_HEADER "X-Sandstorm-Trigger-Secret"

/* Text that has grown beyond this is more than QUERY_PROMPT_MAX_CODE_POINTS, and not finished. */
#define TRIGGER_PROMPT_STOP_BYTES 4000000

/* A string of the caller's; NULL for lack of memory. */
json_t *trigger_prompt_render(const json_t *prompt, const struct trigger_sources *sources)
    __attribute__((warn_unused_result));

#endif
