/*
 * scoreboard: what the processes of one instance know of each other.
 *
 * One shared mapping in a memfd, made by the master before the first fork (a memfd, so that it can survive a re-exec).
 * Fixed-size arrays, C11 atomics, no locks, no pointers. Each field of a slot has one writer, its worker, except after
 * the worker's death, when the master gives back what it held. The master trusts nothing in here but the heartbeat and
 * the counts it gives back; its own table is private.
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
};

/* One cache line pair each, so that no worker's heartbeat slows another. */
struct worker_slot {
    alignas(128) atomic_int pid;
    atomic_int state; /* enum worker_state */
    atomic_uint generation;
    atomic_uint live_runs;    /* admitted and not ended */
    atomic_uint connections;  /* accepted and still open: what the accept gate goes by */
    atomic_uint failed_kills; /* sandboxes whose deletion failed at least once and is tried again */
    atomic_uint_least64_t ended_runs;
    atomic_int_least64_t heartbeat_ms; /* CLOCK_MONOTONIC, written by the worker's loop */
};

struct scoreboard {
    atomic_uint live_runs; /* of all workers: the admission counter */
    atomic_uint slots_end; /* no slot from this one on was ever taken: readers stop here */
    unsigned max_runs;
    struct worker_slot slots[SCOREBOARD_SLOTS_MAX];
};

/* NULL with errno when the memory cannot be had. Mapped shared and inherited over fork. */
struct scoreboard *scoreboard_new(unsigned max_runs) __attribute__((warn_unused_result));
void scoreboard_free(struct scoreboard *scoreboard);

/* Takes a free slot for a worker about to be forked; -1 when all are taken. Master only. */
int scoreboard_take_slot(struct scoreboard *scoreboard, unsigned generation) __attribute__((warn_unused_result));
/* Gives back a dead worker's slot and the runs it held. Master only. Returns how many runs it held. */
unsigned scoreboard_release_slot(struct scoreboard *scoreboard, int slot);

/* Admission: false at max_runs. Exact over all workers. */
bool scoreboard_admit_run(struct scoreboard *scoreboard, int slot) __attribute__((warn_unused_result));
void scoreboard_end_run(struct scoreboard *scoreboard, int slot);

/* failed_kills of all workers. */
unsigned scoreboard_failed_kills(const struct scoreboard *scoreboard);

/* CLOCK_MONOTONIC in milliseconds: the clock of every heartbeat and deadline. */
int64_t monotonic_ms(void);

#endif
