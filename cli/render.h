/*
 * render: the events of one run as a person or a program reads them. The agent's text goes to standard output, all that
 * is about the run (tools, warnings, files, the summary) to standard error; with --json each event's payload is a line
 * of standard output, as it came.
 */
#ifndef CLI_RENDER_H
#define CLI_RENDER_H

#include "cli/terminal.h"

#include <stdbool.h>
#include <stddef.h>

struct render_options {
    bool json;
    bool quiet;             /* the agent's text alone, and errors */
    const char *output_dir; /* NULL: files of the agent are only named */
};

struct render {
    struct render_options options;
    const char *command;
    struct terminal out;
    struct terminal err;
    int output_fd; /* of output_dir; -1: none */
    bool said_text;
    bool has_ended;   /* a result or error event came */
    bool has_failed;  /* it was no success */
    bool file_failed; /* a file of the agent could not be written */
    bool has_summary;
    double turns;
    double cost;
};

/* False with a message. */
bool render_open(struct render *render, const char *command, const struct render_options *options)
    __attribute__((warn_unused_result));
/* One event. False when standard output takes no more. */
bool render_event(struct render *render, const char *payload, size_t length) __attribute__((warn_unused_result));
/* The last line: turns, cost, duration, run id. Nothing of a run that gave no result. */
void render_summary(const struct render *render, double seconds, const char *run_id);
void render_close(struct render *render);

#endif
