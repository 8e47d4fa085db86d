/*
 * master_state: the one struct master of the process, for the files master*.c and nobody else.
 */
#ifndef MASTER_MASTER_STATE_H
#define MASTER_MASTER_STATE_H

#include "common/project_store.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "master/announce.h"
#include "master/generation.h"
#include "master/listen.h"
#include "master/pid_file.h"
#include "master/run_history.h"
#include "master/runtime.h"
#include "master/state_dir.h"
#include "master/upgrade.h"
#include "master/workers.h"

#include <stdbool.h>
#include <stdint.h>

enum master_phase {
    MASTER_RUNTIME,  /* waits for the local runtime, which the workers need to know of */
    MASTER_STARTING, /* the first generation starts */
    MASTER_SERVING,
    MASTER_STOPPING, /* workers were told to stop; over when they, then the runtime, are gone */
};

struct master {
    enum master_phase phase;
    int exit_code;
    int argc;
    char *const *argv;
    struct settings_load *load;  /* of the start, until the first generation has it */
    struct project_store *store; /* likewise */
    int signal_fd;
    struct listeners listeners;
    struct privileges privileges; /* of the workers */
    struct scoreboard *scoreboard;
    int scoreboard_fd; /* for whoever wants to map it again */
    struct workers *workers;
    struct runtime *runtime;    /* NULL: none */
    struct generation *current; /* NULL before MASTER_STARTING */
    struct generation *next;    /* of a reload that is under way */
    unsigned generations;       /* how many there were */
    bool reload_wanted;         /* a HUP that is still to be obeyed */
    bool reload_waits;          /* it was told that there is no room for another generation */
    int64_t loop_ms;            /* when the loop last went round */
    int64_t awake_ms;           /* since when the loop goes round without a gap */
    int64_t watchdog_ms;        /* when the service manager is to hear of us next */
    struct state_dir state_dir;
    struct pid_file pid_file; /* written once the server is ready */
    struct run_history history;
    char *instance;
    struct announcement announcement;
    struct upgrade upgrade;
};

/*
 * Tells all workers to stop (EVENT_STOP) or to end at once (EVENT_END). The loop ends when they are gone. The workers
 * close their sockets too: a new client is refused at once instead of waiting in a queue that nobody serves.
 */
void master_stop(struct master *master, enum child_event how);

/* Logs, and tells the service manager, that the service is up and how it is. */
void master_tell_ready(struct master *master);

/* A generation for a load and a store, which it takes over; NULL after a log line, both freed. Listeners are copied. */
struct generation *master_make_generation(struct master *master, struct settings_load *load,
                                          struct project_store *store, const struct listeners *listeners)
    __attribute__((warn_unused_result));

/* These two are made from the settings and the names the master has by then. False after a log line. */
bool master_make_scoreboard(struct master *master) __attribute__((warn_unused_result));
bool master_make_workers(struct master *master) __attribute__((warn_unused_result));

#endif
