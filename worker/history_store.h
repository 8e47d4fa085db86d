/*
 * history_store: what the master does with the history of runs, in children that it forks for it: restore it at start,
 * and make its file small again (http-api.md section 9).
 */
#ifndef WORKER_HISTORY_STORE_H
#define WORKER_HISTORY_STORE_H

#include "common/scoreboard.h"

#include <stdbool.h>

/*
 * Puts the newest records of the file into the table of runs, before anybody else uses either. What was still running
 * has ended now; its record, and each that was not written by this version, is appended anew. True when there is no
 * file. False after a log line.
 */
bool history_restore(const char *state_dir, struct scoreboard *scoreboard) __attribute__((warn_unused_result));

/*
 * Replaces the file by one of a line for each run that is kept, while workers go on appending. No other process does
 * the same. False after a log line, with the file as it was.
 */
bool history_compact(const char *state_dir, struct scoreboard *scoreboard) __attribute__((warn_unused_result));

#endif
