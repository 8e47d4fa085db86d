/*
 * terminal_line: what the server reads from the lines it forwards (http-api.md 5.9).
 */
#ifndef WORKER_TERMINAL_LINE_H
#define WORKER_TERMINAL_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum agent_ending {
    AGENT_NOT_ENDED, /* no terminal line so far */
    AGENT_SUCCEEDED, /* `result`, subtype success, is_error not true */
    AGENT_FAILED,    /* `result` otherwise */
    AGENT_ERROR,     /* the runner's `error` line */
};

/* What the lines of one run said; the last terminal line decides. */
struct agent_report {
    enum agent_ending ending;
    bool has_cost;
    double cost_usd;
    int64_t num_turns; /* -1: not said */
};

void agent_report_init(struct agent_report *report);
/* Looks at one line; true if it was a terminal line. */
bool agent_report_read(struct agent_report *report, const char *line, size_t length);

#endif
