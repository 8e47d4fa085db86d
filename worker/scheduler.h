/*
 * scheduler: fires the cron triggers of an instance (http-api.md section 14), in the one worker that the master chose.
 *
 * What was fired last is in the scoreboard, where each instant is claimed before it fires: it fires at most once, also
 * when the master changes its choice, and a worker that takes over goes on where the dead one was. An instant that is
 * late by up to a minute still fires; older ones are skipped.
 *
 * Cost: a look at the clock each second, and nothing without cron triggers.
 */
#ifndef WORKER_SCHEDULER_H
#define WORKER_SCHEDULER_H

#include "common/scoreboard.h"
#include "worker/trigger.h"

#include <event2/event.h>

#define SCHEDULE_LATE_MAX_S 60

struct scheduler;

enum schedule_outcome {
    SCHEDULE_FIRED, /* *run_id names its run */
    SCHEDULE_FULL,  /* no slot is free */
    SCHEDULE_FAILED,
};

struct scheduler_handlers {
    enum schedule_outcome (*fire)(void *context, const struct trigger *trigger, uint64_t *run_id);
    void *context;
};

/* The set stays with the caller and outlives it. NULL for lack of memory. */
struct scheduler *scheduler_new(struct event_base *base, struct scoreboard *scoreboard,
                                const struct trigger_set *triggers, const struct scheduler_handlers *handlers)
    __attribute__((warn_unused_result));
void scheduler_free(struct scheduler *scheduler); /* NULL is allowed */

/* From now on, until scheduler_stop(). A second start changes nothing. */
void scheduler_start(struct scheduler *scheduler);
void scheduler_stop(struct scheduler *scheduler);

#endif
