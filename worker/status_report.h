/*
 * status_report: how an instance is, read from its scoreboard: what GET /status answers and `sandstorm status` prints.
 */
#ifndef WORKER_STATUS_REPORT_H
#define WORKER_STATUS_REPORT_H

#include "common/scoreboard.h"

#include <jansson.h>

/*
 * {"version","instance","started_at","uptime_secs","runs":{"live","max","completed","error","cancelled"},"cost_usd",
 * "kill_queue","workers":[{"pid","generation","state","live_runs","connections","ended_runs","heartbeat_age_ms"}]}
 *
 * Counts of ended runs and their cost are since the start of the instance. NULL for lack of memory.
 */
json_t *status_report(const struct scoreboard *scoreboard) __attribute__((warn_unused_result));

/* "starting", "serving", "draining"; "free" for a slot of nobody. */
const char *worker_state_name(enum worker_state state);

#endif
