/*
 * agent_report: what the server reads from the lines it forwards (http-api.md 5.9).
 *
 * Cost: four searches for a word per line; a line that holds one of them is scanned once, without a tree of it.
 */
#ifndef WORKER_AGENT_REPORT_H
#define WORKER_AGENT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AGENT_NAME_MAX_BYTES  128
#define AGENT_ERROR_MAX_BYTES 4096

enum agent_ending {
    AGENT_NOT_ENDED, /* no terminal line so far */
    AGENT_SUCCEEDED, /* `result`, subtype success, is_error not true */
    AGENT_FAILED,    /* `result` otherwise */
    AGENT_ERROR,     /* the runner's `error` line */
};

/* What the lines of one run said; the last terminal line decides. Texts are UTF-8, cut to whole characters, "" if not
 * said. */
struct agent_report {
    enum agent_ending ending;
    bool has_cost;
    double cost_usd;
    int64_t num_turns; /* -1: not said */
    char model[AGENT_NAME_MAX_BYTES + 1];
    char session_id[AGENT_NAME_MAX_BYTES + 1];
    char subtype[AGENT_NAME_MAX_BYTES + 1];
    char *error; /* of the runner's `error` line; NULL: none */
};

enum agent_line {
    AGENT_LINE_PLAIN,
    AGENT_LINE_INIT,
    AGENT_LINE_TERMINAL,
};

void agent_report_init(struct agent_report *report);
void agent_report_release(struct agent_report *report);
/* Looks at one line and says what it was. */
enum agent_line agent_report_read(struct agent_report *report, const char *line, size_t length);

#endif
