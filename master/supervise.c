#include "master/supervise.h"

#include "common/log.h"
#include "worker/worker.h"

/* A worker that is not ready by then is stuck. */
#define START_PATIENCE_MS 30000
/* From SIGABRT to SIGKILL: time to write a core. */
#define ABORT_PATIENCE_MS 5000
/* What the master grants beyond the bounds a worker keeps by itself. */
#define SLACK_MS 5000

/*
 * A starting worker that is told to drain gets the message too: it may have begun to accept before its ready was read.
 * A draining worker that is told to stop keeps its state, and so its deadline: a stop never grants it more time.
 */
static const struct supervise_step table[CHILD_STATES][CHILD_EVENTS] = {
    [CHILD_STARTING] = {[EVENT_READY] = {ACTION_ADMIT, CHILD_SERVING},
                        [EVENT_SILENT] = {ACTION_ABORT, CHILD_ABORTING},
                        [EVENT_LATE] = {ACTION_ABORT, CHILD_ABORTING},
                        [EVENT_DRAIN] = {ACTION_SAY_DRAIN, CHILD_DRAINING},
                        [EVENT_STOP] = {ACTION_SAY_STOP, CHILD_STOPPING},
                        [EVENT_END] = {ACTION_SAY_END, CHILD_ENDING},
                        [EVENT_EXITED] = {ACTION_BURY, CHILD_STARTING}},
    [CHILD_SERVING] = {[EVENT_READY] = {ACTION_NONE, CHILD_SERVING},
                       [EVENT_SILENT] = {ACTION_ABORT, CHILD_ABORTING},
                       [EVENT_LATE] = {ACTION_NONE, CHILD_SERVING},
                       [EVENT_DRAIN] = {ACTION_SAY_DRAIN, CHILD_DRAINING},
                       [EVENT_STOP] = {ACTION_SAY_STOP, CHILD_STOPPING},
                       [EVENT_END] = {ACTION_SAY_END, CHILD_ENDING},
                       [EVENT_EXITED] = {ACTION_BURY, CHILD_SERVING}},
    [CHILD_DRAINING] = {[EVENT_READY] = {ACTION_NONE, CHILD_DRAINING},
                        [EVENT_SILENT] = {ACTION_ABORT, CHILD_ABORTING},
                        [EVENT_LATE] = {ACTION_KILL, CHILD_KILLED},
                        [EVENT_DRAIN] = {ACTION_NONE, CHILD_DRAINING},
                        [EVENT_STOP] = {ACTION_SAY_STOP, CHILD_DRAINING},
                        [EVENT_END] = {ACTION_SAY_END, CHILD_ENDING},
                        [EVENT_EXITED] = {ACTION_BURY, CHILD_DRAINING}},
    [CHILD_STOPPING] = {[EVENT_READY] = {ACTION_NONE, CHILD_STOPPING},
                        [EVENT_SILENT] = {ACTION_ABORT, CHILD_ABORTING},
                        [EVENT_LATE] = {ACTION_KILL, CHILD_KILLED},
                        [EVENT_DRAIN] = {ACTION_NONE, CHILD_STOPPING},
                        [EVENT_STOP] = {ACTION_NONE, CHILD_STOPPING},
                        [EVENT_END] = {ACTION_SAY_END, CHILD_ENDING},
                        [EVENT_EXITED] = {ACTION_BURY, CHILD_STOPPING}},
    [CHILD_ENDING] = {[EVENT_READY] = {ACTION_NONE, CHILD_ENDING},
                      [EVENT_SILENT] = {ACTION_ABORT, CHILD_ABORTING},
                      [EVENT_LATE] = {ACTION_KILL, CHILD_KILLED},
                      [EVENT_DRAIN] = {ACTION_NONE, CHILD_ENDING},
                      [EVENT_STOP] = {ACTION_NONE, CHILD_ENDING},
                      [EVENT_END] = {ACTION_NONE, CHILD_ENDING},
                      [EVENT_EXITED] = {ACTION_BURY, CHILD_ENDING}},
    [CHILD_ABORTING] = {[EVENT_READY] = {ACTION_NONE, CHILD_ABORTING},
                        [EVENT_SILENT] = {ACTION_NONE, CHILD_ABORTING},
                        [EVENT_LATE] = {ACTION_KILL, CHILD_KILLED},
                        [EVENT_DRAIN] = {ACTION_NONE, CHILD_ABORTING},
                        [EVENT_STOP] = {ACTION_NONE, CHILD_ABORTING},
                        [EVENT_END] = {ACTION_NONE, CHILD_ABORTING},
                        [EVENT_EXITED] = {ACTION_BURY, CHILD_ABORTING}},
    [CHILD_KILLED] = {[EVENT_READY] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_SILENT] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_LATE] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_DRAIN] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_STOP] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_END] = {ACTION_NONE, CHILD_KILLED},
                      [EVENT_EXITED] = {ACTION_BURY, CHILD_KILLED}},
};

struct supervise_step supervise_decide(enum child_state state, enum child_event event)
{
    if (state >= CHILD_STATES || event >= CHILD_EVENTS)
        log_panic("supervise: state %d, event %d", (int)state, (int)event);
    return table[state][event];
}

int64_t supervise_patience_ms(enum child_state state, int64_t graceful_timeout_ms)
{
    switch (state) {
    case CHILD_STARTING:
        return START_PATIENCE_MS;
    case CHILD_DRAINING:
    case CHILD_STOPPING:
        return graceful_timeout_ms + WORKER_DELETE_GRACE_MS + SLACK_MS;
    case CHILD_ENDING:
        return WORKER_DELETE_GRACE_MS + SLACK_MS;
    case CHILD_ABORTING:
        return ABORT_PATIENCE_MS;
    case CHILD_SERVING:
    case CHILD_KILLED:
        return -1;
    case CHILD_STATES:
    default:
        log_panic("supervise: patience of state %d", (int)state);
    }
}

const char *supervise_state_name(enum child_state state)
{
    static const char *const names[CHILD_STATES] = {"starting", "serving",  "draining", "stopping",
                                                    "ending",   "aborting", "killed"};

    return state < CHILD_STATES ? names[state] : "unknown";
}

void throttle_note_death(struct throttle *throttle, int64_t now_ms, int64_t lived_ms, bool finished_job)
{
    int64_t delay_ms = 0;

    if (finished_job || lived_ms >= THROTTLE_EARLY_MS) {
        *throttle = (struct throttle){.not_before_ms = now_ms};
        return;
    }
    if (throttle->early_deaths > 0) {
        delay_ms = THROTTLE_FIRST_MS;
        for (unsigned i = 1; i < throttle->early_deaths && delay_ms < THROTTLE_MAX_MS; i++)
            delay_ms *= 2;
    }
    throttle->early_deaths++;
    throttle->not_before_ms = now_ms + (delay_ms < THROTTLE_MAX_MS ? delay_ms : THROTTLE_MAX_MS);
}
