/*
 * recovery: what others left behind: runs and sandboxes of a worker that died, and sandboxes of this instance that no
 * run knows (http-api.md section 16, 3 and 5).
 */
#ifndef WORKER_RECOVERY_H
#define WORKER_RECOVERY_H

#include "worker/run.h"

struct recovery;

/* local_socket and environment: as a worker has them; stay with the caller, like the host. NULL for lack of memory. */
struct recovery *recovery_new(struct run_host *host, const char *local_socket, const struct environment *environment)
    __attribute__((warn_unused_result));
void recovery_free(struct recovery *recovery);

/*
 * To be called every second by a worker that serves. Adopts what dead workers left: their runs end as worker_lost,
 * their sandboxes are deleted, by id or by a search. When it is due, and no other worker took the turn, lists the
 * instance's sandboxes and deletes what belongs to no run: at the start, once more after a minute, then every ten
 * minutes. Cost: a look at each slot of the run table.
 */
void recovery_tick(struct recovery *recovery);

#endif
