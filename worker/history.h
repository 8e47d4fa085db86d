/*
 * history: a worker's part in the history of runs on disk (http-api.md section 9).
 *
 * Nothing here ever fails or delays a run. A line that cannot be written at once waits in a bounded queue: for
 * milliseconds while another process has the file's lock, for seconds while the disk is full or the directory gone. Of
 * that there is one warning, and one word when it is over. Where the queue is full the oldest line is lost, since a
 * newer one may be of the same run.
 */
#ifndef WORKER_HISTORY_H
#define WORKER_HISTORY_H

#include "common/scoreboard.h"

#include <event2/event.h>
#include <stdbool.h>

struct history;

/*
 * For the worker of this slot. state_dir NULL: there is none, and nothing is kept. NULL for lack of memory, not for a
 * file that cannot be opened.
 */
struct history *history_new(struct event_base *base, struct scoreboard *scoreboard, int slot, const char *state_dir)
    __attribute__((warn_unused_result));
/* Writes what still waits, waiting for the lock. NULL is allowed. */
void history_free(struct history *history);

/*
 * Appends the record of a run's slot as it was published last: admitted, sandbox known, ended. Never fails a run. NULL
 * is allowed.
 */
void history_append(struct history *history, unsigned index);

/* Can the history be written, by this worker now and by the others as far as they know? */
bool history_works(struct history *history);

#endif
