/*
 * agent_output: what an agent prints, made into events for its client (http-api.md 5.2 to 5.4), and the report that is
 * read from it on the way (5.9).
 */
#ifndef WORKER_AGENT_OUTPUT_H
#define WORKER_AGENT_OUTPUT_H

#include "worker/agent_report.h"
#include "worker/event_stream.h"
#include "worker/line_buffer.h"
#include "worker/run_error.h"
#include "worker/stderr_text.h"

struct agent_output_handlers {
    /* The report says more than before. */
    void (*on_report)(void *context);
    /* After it: the first terminal line was put. */
    void (*on_terminal)(void *context);
    /* It cannot go on; nothing is put any more. */
    void (*on_failed)(void *context, enum run_error error, const char *message);
    void *context;
};

/* Part of a run; the members are read only outside of agent_output.c. */
struct agent_output {
    bool detached;               /* nobody ever listens, and what it says counts all the same */
    struct event_stream *stream; /* NULL: nobody listens */
    struct line_buffer lines;
    struct stderr_text errors;
    struct event_base *base;
    struct event *stderr_timer; /* NULL: it was not needed yet */
    bool failed;
    struct agent_output_handlers handlers;
    struct agent_report report;
};

void agent_output_init(struct agent_output *output, struct event_base *base, size_t line_limit_bytes,
                       const struct agent_output_handlers *handlers);
void agent_output_release(struct agent_output *output);

/* The client is there, or (NULL) gone. */
void agent_output_listen(struct agent_output *output, struct event_stream *stream);

/* May be called inside libcurl. stdout and stderr keep their order of arrival. */
void agent_output_add(struct agent_output *output, bool is_stderr, const char *bytes, size_t length);
/* All that is there was added: what is complete goes out. */
void agent_output_flush(struct agent_output *output);
/* The process ended: what is unfinished goes out too. */
void agent_output_finish(struct agent_output *output);
/* The rest of the output does not count. */
void agent_output_stop(struct agent_output *output);

#endif
