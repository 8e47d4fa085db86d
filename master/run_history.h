/*
 * run_history: the master's part in the history of runs on disk (http-api.md section 9): it has it restored before the
 * first worker, and compacted when it has grown. Both happen in children, since records are the workers' business and
 * disks may hang. Neither is needed to serve: what fails is told and done without.
 */
#ifndef MASTER_RUN_HISTORY_H
#define MASTER_RUN_HISTORY_H

#include "common/scoreboard.h"
#include "master/privileges.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct run_history {
    const char *state_dir; /* borrowed; NULL: nothing is kept */
    struct scoreboard *scoreboard;
    const struct privileges *privileges; /* of the children that touch the file */
    pid_t compactor;                     /* 0: none */
    uint64_t settled_lines;              /* that the last compaction left */
    int64_t earliest_ms;                 /* of the next one */
};

/* Restores, waiting for the child, 30 s at most. Before the first worker. */
void run_history_begin(struct run_history *history, const char *state_dir, struct scoreboard *scoreboard,
                       const struct privileges *privileges);
/* Instead, when the table was taken over with its runs in it. A compaction may be under way. */
void run_history_adopt(struct run_history *history, const char *state_dir, struct scoreboard *scoreboard,
                       const struct privileges *privileges, uint64_t settled_lines);
/* Kills a compaction that is under way: it can be killed at any point. */
void run_history_end(struct run_history *history);

/* Starts a compaction if there is cause. */
void run_history_tick(struct run_history *history, int64_t now_ms);
/* True if the dead child was the one that compacts. */
bool run_history_reaped(struct run_history *history, pid_t pid, int status);

#endif
