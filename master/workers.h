/*
 * workers: the master's private table of its workers, one entry a child, from fork to reap.
 *
 * The master trusts this table, never the scoreboard, about who lives. What happens to a worker goes through
 * workers_event(), which asks supervise_decide() and carries out its answer.
 */
#ifndef MASTER_WORKERS_H
#define MASTER_WORKERS_H

#include "common/environment.h"
#include "common/project_store.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "common/tls_files.h"
#include "master/listen.h"
#include "master/privileges.h"
#include "master/supervise.h"

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What all workers of a generation are given. The pointers stay valid while a worker may be forked from it. */
struct worker_plan {
    unsigned generation;
    const struct settings *settings;
    struct environment *environment; /* that the settings were read with */
    struct listeners listeners;
    struct tls_files *tls_files; /* NULL: plain HTTP */
    const char *local_socket;    /* NULL: no local runtime */
    const struct privileges *privileges;
    const char *instance;
    const char *state_dir; /* NULL: none */
    struct project_store *project_store;
    int owner_fd; /* write end of the pipe whose end of file tells sandboxd that all workers are gone; -1: none */
};

struct worker {
    pid_t pid; /* 0: the entry is free */
    int slot;  /* in the scoreboard; also the entry's index */
    int fd;    /* the master's end of the socketpair; -1 once the worker closed its own */
    unsigned generation;
    unsigned seat;
    enum child_state state;
    bool was_ready;
    bool is_elected; /* it was told to do what one worker of the instance does */
    bool is_unseen;  /* it writes to a scoreboard of another layout: its slot here only keeps its place */
    int64_t started_ms;
    int64_t deadline_ms; /* of its state; -1: none */
    int64_t graceful_timeout_ms;
    int64_t worker_timeout_ms;
    int64_t run_limit; /* after so many runs it is to be replaced; 0: never */
};

/* What the table tells its owner. was_ready, seat, started_ms of the worker are still as they were. */
struct workers_callbacks {
    void (*admitted)(struct worker *worker, void *owner);
    /* It was reaped; `finished_job` says whether it ever ended a run. The entry is free after the call. */
    void (*buried)(struct worker *worker, bool finished_job, void *owner);
};

struct workers;

struct workers *workers_new(struct scoreboard *scoreboard, const struct workers_callbacks *callbacks, void *owner)
    __attribute__((warn_unused_result));
/* The children are not touched. */
void workers_free(struct workers *workers);

/* Forks one worker. NULL when it could not be, after a log line. Never returns in the child. */
struct worker *workers_spawn(struct workers *workers, const struct worker_plan *plan, unsigned seat)
    __attribute__((warn_unused_result));

/*
 * Takes over a worker that was forked before an exec, in its slot. An unseen one holds that slot of a fresh scoreboard;
 * as long as there is one, no worker looks for sandboxes that no run knows, since its runs are not known.
 */
void workers_adopt(struct workers *workers, const struct worker *worker);

/* The next worker at or after *cursor (start at 0); NULL at the end. Entries may be freed between calls. */
struct worker *workers_next(struct workers *workers, size_t *cursor);
size_t workers_count(const struct workers *workers);
/* How many are in a state. */
size_t workers_count_in(struct workers *workers, enum child_state state);
/* Those of a generation that drain. */
size_t workers_count_draining(struct workers *workers, unsigned generation);
/* Has it served as many runs as it may? */
bool workers_is_spent(const struct workers *workers, const struct worker *worker);
/* How many generations other than this one still have workers. */
unsigned workers_other_generations(struct workers *workers, unsigned generation);

/* Something happened to a worker, or the master wants something of it. */
void workers_event(struct workers *workers, struct worker *worker, enum child_event event);
void workers_event_all(struct workers *workers, enum child_event event);
/* One worker of the generation that serves is elected: the one that was before, as long as it does. */
void workers_elect(struct workers *workers, unsigned generation);
/* Tells all of them, old ones too, to open their log again. */
void workers_reopen_log(struct workers *workers);

/* Adds the socketpairs to fds[], which has room for SCOREBOARD_SLOTS_MAX; returns how many. */
size_t workers_poll(struct workers *workers, struct pollfd *fds);
/* After poll, with the same fds[] and count. */
void workers_polled(struct workers *workers, const struct pollfd *fds, size_t count);

/* A child was reaped. False: it was no worker. */
bool workers_reaped(struct workers *workers, pid_t pid, int status);

/*
 * Raises EVENT_LATE and EVENT_SILENT where they are due. Silence is counted from awake_ms at the earliest: the time the
 * master itself was last known to be stopped.
 */
void workers_tick(struct workers *workers, int64_t now_ms, int64_t awake_ms);
/* The earliest deadline; -1: none. */
int64_t workers_deadline_ms(struct workers *workers);

#endif
