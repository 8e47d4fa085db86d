/*
 * supervise: what the master does when something happens to a worker. Pure decisions: no process, no clock of its own.
 *
 * A worker's state in the master and an event choose one row of a table (state x event -> action, next state). Each
 * state has its patience: how long a worker may stay in it before EVENT_LATE.
 */
#ifndef MASTER_SUPERVISE_H
#define MASTER_SUPERVISE_H

#include <stdbool.h>
#include <stdint.h>

/* What the master last knew of, or wanted from, a worker. */
enum child_state {
    CHILD_STARTING, /* forked, has not said ready */
    CHILD_SERVING,  /* said ready */
    CHILD_DRAINING, /* told to let its runs end: another worker took over */
    CHILD_STOPPING, /* told the same because the instance stops */
    CHILD_ENDING,   /* told to end its runs now */
    CHILD_ABORTING, /* silent or stuck: sent SIGABRT */
    CHILD_KILLED,   /* sent SIGKILL; only its exit is left to come */
    CHILD_STATES,
};

enum child_event {
    EVENT_READY,  /* it said ready */
    EVENT_SILENT, /* its heartbeat is older than worker_timeout */
    EVENT_LATE,   /* it outlived the patience of its state */
    EVENT_DRAIN,  /* the master wants another worker in its place, or one fewer */
    EVENT_STOP,   /* the instance stops */
    EVENT_END,    /* the instance stops at once */
    EVENT_EXITED, /* it was reaped */
    CHILD_EVENTS,
};

enum child_action {
    ACTION_NONE,
    ACTION_ADMIT,     /* it serves from now on */
    ACTION_SAY_DRAIN, /* MASTER_SAYS_DRAIN */
    ACTION_SAY_STOP,  /* MASTER_SAYS_STOP */
    ACTION_SAY_END,   /* MASTER_SAYS_END */
    ACTION_ABORT,     /* SIGABRT, so that a core shows where it hangs */
    ACTION_KILL,      /* SIGKILL */
    ACTION_BURY,      /* release what it held */
};

struct supervise_step {
    enum child_action action;
    enum child_state next;
};

struct supervise_step supervise_decide(enum child_state state, enum child_event event);

/* How long a worker may stay in a state, in ms; -1: for ever. */
int64_t supervise_patience_ms(enum child_state state, int64_t graceful_timeout_ms);

/* For logs. */
const char *supervise_state_name(enum child_state state);

/*
 * Throttle of respawns, one per place that is refilled. The first early death is answered at once; the ones after it
 * wait 1 s, 2 s, ... 60 s. A child that did a job or lived long enough clears it. Zero-initialised.
 */
struct throttle {
    unsigned early_deaths;
    int64_t not_before_ms;
};

/* A death within this time, without a finished job, is early. */
#define THROTTLE_EARLY_MS 10000
#define THROTTLE_FIRST_MS 1000
#define THROTTLE_MAX_MS   60000

void throttle_note_death(struct throttle *throttle, int64_t now_ms, int64_t lived_ms, bool finished_job);

#endif
