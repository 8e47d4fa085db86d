/*
 * run: one agent execution, from its admission to its one end (http-api.md sections 4 to 8).
 *
 * A run owns its request, its stream and its transfers. It ends once, in run_end(), by whoever sees the end
 * first; everything else follows from the outcome.
 */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include "common/run_table.h"
#include "worker/agent_config.h"
#include "worker/event_stream.h"
#include "worker/history.h"
#include "worker/kill_queue.h"
#include "worker/project_dir.h"
#include "worker/stray_search.h"
#include "worker/template_memory.h"
#include "worker/trace_context.h"

#include <sys/queue.h>

#define RUN_CANCELLED_TEXT "cancelled by user"

TAILQ_HEAD(run_list, run);

/* What the runs of a worker share. */
struct run_host {
    struct event_base *base;
    struct http_client *http;
    struct kill_queue *kills;
    struct stray_search *strays;
    const struct settings *settings;
    struct scoreboard *scoreboard;
    int slot;
    uint64_t serial; /* of this worker */
    const char *instance;
    struct project_dir *project_dir;
    struct history *history;
    struct telemetry *telemetry; /* NULL: none is sent */
    struct agent_runner runner;
    struct template_memory templates;
    struct run_list runs;
    size_t run_count;    /* live */
    size_t create_count; /* creates in flight whose run has ended */
    /* The worker of this serial is to call run_end_wanted(). */
    void (*tell_owner)(void *context, uint64_t serial);
    /* Something ended: a worker that drains looks whether it is done. */
    void (*on_progress)(void *context);
    void *context;
};

/* What a run is made of, all of it taken over. */
struct run_order {
    struct query_request request;
    struct project_view view; /* of the project directory, as it was when the request was checked */
    struct e2b_service *service;
    struct trace_context caller; /* whose trace the run belongs to */
};

void run_order_release(struct run_order *order);

/*
 * Starts a run for an admitted request (scoreboard_admit_run() was true): the 200 goes out at once. Takes the order
 * over, in every case.
 */
void run_start(struct run_host *host, struct exchange *exchange, struct run_order *order);

/*
 * Starts a run that has no client, for a trigger of this name: its agent's words are only counted, its files stay
 * where they are. missing: why it cannot be configured, which becomes its end; NULL: it can. Takes the order over, in
 * every case. False for lack of memory; else *id names it.
 */
bool run_start_detached(struct run_host *host, struct run_order *order, const char *trigger, const char *missing,
                        uint64_t *id) __attribute__((warn_unused_result));

/*
 * Ends those runs that somebody, in whichever process, wants cancelled, or knows to have lost their sandbox. Cost: a
 * look at each live run's slot.
 */
void run_end_wanted(struct run_host *host);

/* Ends all runs with server_shutdown. */
void run_end_all(struct run_host *host);

#endif
