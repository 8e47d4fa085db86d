/*
 * scoreboard: what the processes of one instance know of each other: its workers (here), its runs (run_table.h), what
 * they counted (metrics.h).
 *
 * One shared mapping in a memfd, made by the master before the first fork; whoever has the descriptor can map it again,
 * after a re-exec or to look at it from outside. Fixed-size arrays, C11 atomics, no locks, no pointers. Each field of a
 * slot has one writer, its worker, except after the worker's death, when the master gives back what it held. The master
 * trusts nothing in here but the heartbeat and the counts it gives back; its own table is private.
 */
#ifndef COMMON_SCOREBOARD_H
#define COMMON_SCOREBOARD_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Room for 256 workers in four generations: the current one, two that drain and one that starts. */
#define SCOREBOARD_SLOTS_MAX 1024

enum worker_state {
    WORKER_FREE,     /* nobody's slot */
    WORKER_STARTING, /* forked, not yet accepting */
    WORKER_SERVING,  /* accepting */
    WORKER_DRAINING, /* accepts nothing, its runs go on */
    WORKER_STATES
};

/* One cache line pair each, so that no worker's heartbeat slows another. */
struct worker_slot {
    alignas(128) atomic_int pid;
    atomic_int state; /* enum worker_state */
    /* Names this worker among all the instance ever had, and holds its slot (SCOREBOARD_SERIAL_SLOT). 0: it is dead. */
    atomic_uint_least64_t serial;
    atomic_uint generation;
    atomic_uint live_runs;     /* admitted and not ended */
    atomic_uint connections;   /* accepted and still open: what the accept gate goes by */
    atomic_uint failed_kills;  /* sandboxes whose deletion failed at least once and is tried again */
    atomic_bool history_fails; /* it cannot write the history of runs */
    atomic_uint_least64_t ended_runs;
    atomic_int_least64_t heartbeat_ms; /* CLOCK_MONOTONIC, written by the worker's loop */
};

/* How /proc/PID/fd shows the descriptor, behind "/memfd:". */
#define SCOREBOARD_FILE_NAME           "sandstorm-scoreboard"
#define SCOREBOARD_SERIAL_SLOT(serial) ((unsigned)((serial) % SCOREBOARD_SLOTS_MAX))
#define SCOREBOARD_INSTANCE_MAX_BYTES  64

#define SCOREBOARD_WEBHOOK_ID_MAX_BYTES 128
#define SCOREBOARD_WEBHOOK_SECRET_BYTES 64

/* Cron triggers of an instance. */
#define SCOREBOARD_SCHEDULES_MAX 64

/* What became of a cron trigger: it outlives the worker that fires it. */
struct schedule_slot {
    atomic_uint_least64_t key;    /* of its name and schedule; 0: nobody's */
    atomic_int_least64_t fired_s; /* the newest instant that was fired or skipped: CLOCK_REALTIME */
    atomic_uint_least64_t run_id; /* of the run of the last one that was fired; 0: none */
};

/* What the mapping is sized from. */
struct scoreboard_sizes {
    unsigned max_runs;
    unsigned run_history; /* ended runs that are remembered */
};

/* Behind it: the slots and the records of the runs, which run_table.c knows, then the cells of metrics.c. */
struct scoreboard {
    uint64_t layout; /* of this version of the program */
    uint64_t bytes;  /* of the mapping */
    struct scoreboard_sizes sizes;
    unsigned run_slots;
    int64_t started_us; /* of the instance: CLOCK_REALTIME */
    char instance[SCOREBOARD_INSTANCE_MAX_BYTES + 1];
    atomic_uint live_runs; /* of all workers: the admission counter */
    atomic_uint slots_end; /* no slot from this one on was ever taken: readers stop here */
    atomic_uint_least64_t serials;
    /* Until when (CLOCK_MONOTONIC) the sandbox service counts as alive; as a negative number: as not alive. 0: nobody
     * asked it yet. */
    atomic_int_least64_t service_known_ms;
    atomic_int_least64_t reconcile_due_ms; /* when a worker looks next for sandboxes that no run knows; 0: never yet */
    atomic_int_least64_t service_asked_ms; /* until when a worker asks it, and no other does */
    /* What the elected worker registered at the sandbox service; written before has_webhook says so. */
    atomic_uint_least64_t webhook_busy; /* serial of the worker that has a request about it under way */
    atomic_bool has_webhook;
    char webhook_id[SCOREBOARD_WEBHOOK_ID_MAX_BYTES + 1]; /* "" when the registration failed */
    uint64_t webhook_key;                                 /* of what was registered */
    /* The secret that was made for it: 64 hex digits; written before has_webhook_secret says so, and never again. */
    atomic_bool has_webhook_secret;
    char webhook_secret[SCOREBOARD_WEBHOOK_SECRET_BYTES + 1];
    struct schedule_slot schedules[SCOREBOARD_SCHEDULES_MAX];
    struct worker_slot slots[SCOREBOARD_SLOTS_MAX];
    alignas(128) atomic_uint ended_runs;  /* remembered */
    atomic_uint_least64_t run_admissions; /* these two number what happened, from 1 on */
    atomic_uint_least64_t run_ends;
    atomic_uint_least64_t history_lines; /* of the file: written under its lock */
};

/*
 * NULL with errno when the memory cannot be had. Mapped shared and inherited over fork. *fd, if wanted, is the
 * caller's, close-on-exec; else nothing can map it again.
 */
struct scoreboard *scoreboard_new(const struct scoreboard_sizes *sizes, int *fd) __attribute__((warn_unused_result));
/* Maps what another process made. NULL with errno: EPROTO when it is of another version of the program. */
struct scoreboard *scoreboard_map(int fd, bool writable) __attribute__((warn_unused_result));
void scoreboard_free(struct scoreboard *scoreboard);

/* Takes a free slot for a worker about to be forked; -1 when all are taken. Master only. */
int scoreboard_take_slot(struct scoreboard *scoreboard, unsigned generation) __attribute__((warn_unused_result));
/*
 * Takes this slot for a worker that lives, but knows only another scoreboard: it shows as draining, without runs.
 * Master only.
 */
void scoreboard_hold_slot(struct scoreboard *scoreboard, int slot, unsigned generation, pid_t pid);
/* Gives back a dead worker's slot and the runs it held. Master only. Returns how many runs it held. */
unsigned scoreboard_release_slot(struct scoreboard *scoreboard, int slot);

/* Admission: false at max_runs. Exact over all workers. */
bool scoreboard_admit_run(struct scoreboard *scoreboard, int slot) __attribute__((warn_unused_result));
void scoreboard_end_run(struct scoreboard *scoreboard, int slot);

/* failed_kills of all workers. */
unsigned scoreboard_failed_kills(const struct scoreboard *scoreboard);
/* Does any worker fail to write the history? */
bool scoreboard_history_fails(const struct scoreboard *scoreboard);

/* Does the worker of this serial live? False for 0. */
bool scoreboard_is_alive(const struct scoreboard *scoreboard, uint64_t serial);

#endif
