/*
 * run_internal: one run from inside, for run_start.c, its beginning, run.c, its states, and run_end.c, its one end.
 * Nobody else includes it.
 */
#ifndef WORKER_RUN_INTERNAL_H
#define WORKER_RUN_INTERNAL_H

#include "worker/agent_output.h"
#include "worker/agent_stream.h"
#include "worker/collection.h"
#include "worker/creation.h"
#include "worker/input_files.h"
#include "worker/run.h"
#include "worker/run_trace.h"
#include "worker/template_install.h"

enum run_state {
    RUN_CREATING,   /* POST /sandboxes is in flight */
    RUN_UPLOADING,  /* the sandbox exists; its files are on their way */
    RUN_INSTALLING, /* the fallback template gets the Agent SDK */
    RUN_STARTING,   /* Process/Start was sent, no start event yet */
    RUN_STREAMING,  /* the agent runs */
    RUN_COLLECTING, /* the agent has ended; its files come back */
    RUN_ENDED,      /* waits for the loop to free it */
};

struct run {
    struct run_host *host;
    struct run_entry entry; /* its record, for all workers; and its lease */
    char id[RUN_ID_DIGITS + 1];
    enum run_state state;
    struct query_request request; /* until the upload is over */
    struct project_view view;     /* until the configuration is built */
    struct agent_config config;   /* until the upload is over */
    struct input_files *inputs;   /* from then on */
    struct e2b_context e2b;
    struct run_trace *trace;     /* NULL: none is kept */
    struct access_entry *access; /* of its request, until the run has ended; NULL: none */
    struct creation *creation;
    struct template_install *install;
    struct e2b_upload *upload;
    struct agent_stream *agent;
    struct collection *collection;
    struct e2b_sandbox *sandbox;
    int64_t agent_pid;
    char *model;                  /* the effective one, for what is counted; NULL: none */
    int64_t agent_started_ms;     /* 0: it did not */
    int64_t agent_us;             /* how long it ran; -1: unknown yet */
    struct agent_output output;   /* with the client's stream; once it failed, pending_error ends the run */
    struct event *deadline;       /* D of http-api.md 6.1; after the terminal line, the process's grace */
    struct event *deferred;       /* what may not happen inside libcurl, and the freeing */
    enum run_error pending_error; /* ends the run: from the loop, or after the collection */
    char *pending_message;
    bool is_fallback; /* the sandbox's template is not the configured one */
    int64_t timeout_s;
    int64_t admitted_ms;
    int64_t first_output_ms; /* after the admission the agent said something; -1: not yet */
    int64_t deadline_ms;
    int64_t expires_ms; /* end of the sandbox's time to live */
    TAILQ_ENTRY(run) link;
};

/* --- run.c --- */

/* The configuration is built: the run goes on with its sandbox. */
void run_create_sandbox(struct run *run);
/* A warning event, where somebody listens. */
void run_put_warning(struct run *run, const char *code, const char *message);
/* What a run does when it is told something: by its agent's output, its client, its two events. */
struct agent_output_handlers run_output_handlers(struct run *run);
struct event_stream_handlers run_client_handlers(struct run *run);
void run_on_deadline(evutil_socket_t fd, short what, void *context);
void run_on_deferred(evutil_socket_t fd, short what, void *context);

/* --- run_end.c --- */

/* The one end, never called inside libcurl: called once, by whoever sees the end first. RUN_ERROR_NONE: the terminal
 * line decides; so it does with every later error. */
void run_end(struct run *run, enum run_error error, const char *message);
/* For a run whose stream could not be opened: its record ends, and nothing else began. */
void run_end_unheard(struct run *run);
/* From the loop, after its end; or before anything of it began. */
void run_free(struct run *run);

/* What ends the run later. The message may be one that goes away with what is freed next, or the pending one itself. */
void run_set_pending(struct run *run, enum run_error error, const char *message);
const char *run_pending_message(const struct run *run);

bool run_has_terminal_line(const struct run *run);
/* What the run ends with if it ends with this: the terminal line decides. */
enum run_error run_error_in_effect(const struct run *run, enum run_error error);
/* The agent has ended, or nobody waits for its end. */
void run_let_go_of_agent(struct run *run);

#endif
