/*
 * access_line: one line of the access log, from what is known of one request. Pure.
 *
 * The path is logged as it was sent, without query, host and user of the target: a query may hold what nobody wants in
 * a log. Neither is any header but the User-Agent, nor a byte of a body. Outside text is cut to ACCESS_TEXT_MAX_BYTES
 * and marked with "...", at the end of a UTF-8 sequence.
 *
 * Common: Apache's combined format with the referer always "-", then seconds and, for a run, its facts:
 *   203.0.113.9 - - [31/Jan/2026:10:00:00 +0000] "POST /query HTTP/1.1" 200 5120 "-" "httpx/0.28" 12.345
 *   run=00ff... state=completed code=- first_event=1.250 events=42 sandbox=i3x... model="claude-sonnet-4-5"
 * (one line). "-" stands for what is not known; in quotes all but printable ASCII, `"` and `\` are \xNN.
 *
 * JSON: time (of the request's first byte), client, method, path, protocol, status, bytes, duration_ms, complete,
 * user_agent; for a run also run_id, state, error_code, first_event_ms, events, sandbox_id, model. null stands for what
 * is not known; bytes that are no UTF-8 are U+FFFD.
 */
#ifndef WORKER_ACCESS_LINE_H
#define WORKER_ACCESS_LINE_H

#include "common/settings.h"
#include "worker/peers.h"
#include "worker/span.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACCESS_TEXT_MAX_BYTES 200 /* http-api.md section 17 */
#define ACCESS_LINE_MAX_BYTES 4096

/* A copy of outside text. length 0: there is none. */
struct access_text {
    uint8_t length;
    bool cut;
    char bytes[ACCESS_TEXT_MAX_BYTES];
};

/* What a run was, once it has ended. The texts are borrowed until access_facts_run() has copied them. */
struct access_run {
    const char *id;
    const char *state;      /* of its record; static */
    const char *error_code; /* static; "": none */
    int64_t first_event_ms; /* from its admission to its agent's first output; -1: there was none */
    const char *sandbox_id; /* NULL: none */
    const char *model;      /* NULL: none */
};

struct access_facts {
    int64_t started_us; /* since 1970 */
    int64_t duration_us;
    char client[PEER_NAME_MAX_BYTES]; /* "": unknown */
    struct access_text method, path, user_agent;
    bool is_http_1_0;
    bool is_complete; /* the client took the whole answer */
    int status;       /* 0: there was no answer */
    uint64_t bytes;   /* of the answer with its head, that the client's socket took */
    bool has_run;
    char run_id[32];
    const char *state, *error_code;
    int64_t first_event_ms;
    uint64_t events; /* sent to the client, the server's own too; pings are none */
    struct access_text sandbox_id, model;
};

void access_text_set(struct access_text *text, struct span value);
/* The path of a request's target, also of http://user@host/path?query. */
struct span access_path(struct span target);
void access_facts_run(struct access_facts *facts, const struct access_run *run);

/* A line with its end; returns its length. */
size_t access_line_format(const struct access_facts *facts, enum access_log_format format,
                          char line[static ACCESS_LINE_MAX_BYTES]);

#endif
