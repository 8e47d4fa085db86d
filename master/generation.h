/*
 * generation: the workers that were started with one reading of the settings, seat by seat.
 *
 * A generation wants as many seats filled as there should be workers. A worker that dies leaves its seat vacant and the
 * next generation_fill() fills it, as soon as that seat's throttle allows. A worker told to drain has left its seat
 * already: it is nobody's but the table's until it is buried. A worker that has served its worker_max_requests keeps
 * its seat until its successor is ready; one seat at a time has a successor. A generation that has never served is not
 * refilled: the first death fails it.
 */
#ifndef MASTER_GENERATION_H
#define MASTER_GENERATION_H

#include "common/settings.h"
#include "master/supervise.h"
#include "master/workers.h"

#include <stdbool.h>
#include <stdint.h>

enum generation_state {
    GENERATION_STARTING, /* not all of its workers are ready yet */
    GENERATION_SERVING,  /* all were ready once */
    GENERATION_FAILED,   /* a worker died before that */
};

struct seat {
    bool wanted;
    struct worker *worker;    /* NULL: vacant */
    struct worker *successor; /* starts, to take the worker's place; NULL: none */
    struct throttle throttle;
};

struct generation {
    enum generation_state state;
    struct settings_load *load; /* owned */
    struct worker_plan plan;
    struct seat seats[SETTINGS_WORKERS_MAX];
};

/*
 * Takes the load and the plan's project store over. The plan's generation is its number; its settings and environment
 * become the load's. NULL without memory or the files of TLS, after a log line; nothing is taken then.
 */
struct generation *generation_new(struct settings_load *load, const struct worker_plan *plan)
    __attribute__((warn_unused_result));
/* Its workers are not touched. */
void generation_free(struct generation *generation);

/* For workers that were there before the generation: it serves, wants no seat, and then those they are given. */
void generation_clear_seats(struct generation *generation);
void generation_seat(struct generation *generation, struct worker *worker);

/* Starts workers on vacant seats that may be filled now. */
void generation_fill(struct generation *generation, struct workers *workers, int64_t now_ms);
/* When generation_fill() has something to do next; -1: never. */
int64_t generation_deadline_ms(const struct generation *generation);

/* Starts a successor for a worker that has served its runs, if there is one and nothing speaks against it now. */
void generation_recycle(struct generation *generation, struct workers *workers, int64_t now_ms);

/*
 * A worker of it said ready: the last one makes it a serving generation, and a successor takes its seat, whose worker
 * drains.
 */
void generation_admitted(struct generation *generation, struct workers *workers, struct worker *worker);
/* A worker was buried: its seat is vacant, if it still had one. */
void generation_buried(struct generation *generation, const struct worker *worker, bool finished_job, int64_t now_ms);

/* Tells all its workers to drain; they leave their seats, and no seat is wanted any more. */
void generation_retire(struct generation *generation, struct workers *workers);

/* One seat more or fewer (fewer: the oldest worker drains). False at the bounds, 1 and SETTINGS_WORKERS_MAX. */
bool generation_grow(struct generation *generation) __attribute__((warn_unused_result));
bool generation_shrink(struct generation *generation, struct workers *workers) __attribute__((warn_unused_result));
unsigned generation_wanted(const struct generation *generation);

#endif
