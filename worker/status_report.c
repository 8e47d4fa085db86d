#include "worker/status_report.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "worker/timestamp.h"

#define MICRO 1e6

const char *worker_state_name(enum worker_state state)
{
    switch (state) {
    case WORKER_FREE:
        return "free";
    case WORKER_STARTING:
        return "starting";
    case WORKER_SERVING:
        return "serving";
    case WORKER_DRAINING:
        return "draining";
    case WORKER_STATES:
    default:
        log_panic("scoreboard: no state %d of a worker", (int)state);
    }
}

static json_t *report_worker(const struct worker_slot *slot, enum worker_state state, int64_t now_ms)
{
    int64_t age_ms = now_ms - atomic_load(&slot->heartbeat_ms);

    return json_pack("{s:i, s:I, s:s, s:I, s:I, s:I, s:I}", "pid", atomic_load(&slot->pid), "generation",
                     (json_int_t)atomic_load(&slot->generation), "state", worker_state_name(state), "live_runs",
                     (json_int_t)atomic_load(&slot->live_runs), "connections",
                     (json_int_t)atomic_load(&slot->connections), "ended_runs",
                     (json_int_t)atomic_load(&slot->ended_runs), "heartbeat_age_ms",
                     (json_int_t)(age_ms > 0 ? age_ms : 0)); /* it may beat while we look */
}

static json_t *report_workers(const struct scoreboard *scoreboard)
{
    json_t *workers = json_array();
    int64_t now_ms = monotonic_ms();

    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++) {
        const struct worker_slot *slot = &scoreboard->slots[i];
        enum worker_state state = (enum worker_state)atomic_load(&slot->state);

        if (state != WORKER_FREE && state < WORKER_STATES)
            json_array_append_new(workers, report_worker(slot, state, now_ms));
    }
    return workers;
}

static json_int_t ended(const struct scoreboard *scoreboard, enum metric_outcome outcome)
{
    return (json_int_t)metrics_total(scoreboard, METRIC_REQUESTS, outcome);
}

static json_t *report_runs(const struct scoreboard *scoreboard)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "live", (json_int_t)atomic_load(&scoreboard->live_runs), "max",
                     (json_int_t)scoreboard->sizes.max_runs, "completed", ended(scoreboard, METRIC_OUTCOME_OK), "error",
                     ended(scoreboard, METRIC_OUTCOME_ERROR), "cancelled", ended(scoreboard, METRIC_OUTCOME_CANCELLED));
}

json_t *status_report(const struct scoreboard *scoreboard)
{
    char started_at[TIMESTAMP_BYTES];

    return json_pack("{s:s, s:s, s:s, s:f, s:o, s:f, s:i, s:o}", "version", SANDSTORM_VERSION, "instance",
                     scoreboard->instance, "started_at", timestamp_format(scoreboard->started_us, started_at),
                     "uptime_secs", (double)(realtime_us() - scoreboard->started_us) / MICRO, "runs",
                     report_runs(scoreboard), "cost_usd", (double)metrics_total(scoreboard, METRIC_COST, 0) / MICRO,
                     "kill_queue", (int)scoreboard_failed_kills(scoreboard), "workers", report_workers(scoreboard));
}
