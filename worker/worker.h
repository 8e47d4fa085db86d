/*
 * worker: one process of the proxy. The only header of worker/ that master/ includes.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include "common/environment.h"
#include "common/project_store.h"
#include "common/scoreboard.h"
#include "common/settings.h"
#include "common/tls_files.h"

#include <stdbool.h>
#include <stddef.h>

/*
 * What master and worker say to each other over their stream socketpair: single bytes. The end of file means that the
 * master died: the worker ends its runs with server_shutdown, deletes their sandboxes and exits.
 */
enum worker_message {
    /* worker to master */
    WORKER_SAYS_READY = 'R', /* it accepts connections */
    WORKER_SAYS_LOOK = 'l',  /* another worker's run is to be ended: tell all to look */
    /* master to worker */
    MASTER_SAYS_DRAIN = 'd', /* a newer generation serves: accept nothing, let the runs end, within graceful_timeout */
    MASTER_SAYS_STOP = 's',  /* the instance stops: as drain, and refuse new runs on open connections */
    MASTER_SAYS_LOOK = 'L',  /* look which of your runs somebody wants ended */
    MASTER_SAYS_ELECTED = 'c', /* you do what one worker of the instance does: schedules, the webhook at the service */
    MASTER_SAYS_REOPEN = 'o',  /* open the log again: it was rotated */
    MASTER_SAYS_END = 'e',     /* end the runs now with server_shutdown, delete their sandboxes (10 s), exit */
};

/* Longest that deletions may take after a worker's runs were ended by a stop. The master's patience must be longer. */
#define WORKER_DELETE_GRACE_MS 10000

enum worker_exit {
    WORKER_EXIT_OK = 0,     /* drained, or ended as told */
    WORKER_EXIT_FAILED = 1, /* its loop broke */
    WORKER_EXIT_BOOT = 3,   /* could not start: the reason is in the log (gunicorn's number for the same) */
};

/* Everything a worker has from its master; valid for the worker's life. */
struct worker_context {
    const struct settings *settings;
    struct environment *environment; /* that the settings were read with */
    struct scoreboard *scoreboard;
    int slot;              /* its own in the scoreboard, state WORKER_STARTING */
    int master_fd;         /* its end of the socketpair, non-blocking */
    const int *listen_fds; /* non-blocking, listening */
    size_t listen_count;
    uint64_t listen_proxied;             /* a bit for each: its connections begin with a PROXY protocol header */
    const struct tls_files *tls_files;   /* of its generation; NULL: plain HTTP */
    const char *local_socket;            /* of sandboxd; NULL when this instance has no local runtime */
    const char *instance;                /* sandboxes carry this name in their metadata */
    const char *state_dir;               /* NULL: this instance keeps nothing */
    struct project_store *project_store; /* of its generation */
};

/*
 * The life of one worker, called in the forked child with all signals at their defaults but HUP, TTIN, TTOU, INT and
 * PIPE, which are ignored. Opens its own logs, sets the slot's pid and state, says ready, returns an enum worker_exit.
 * TERM and QUIT end it as MASTER_SAYS_END does.
 */
int worker_main(const struct worker_context *context);

/*
 * Is the project directory good to start or reload with, in this environment? Faults are in the log then; what is good
 * is in the store. Uses libraries that a master must not have before it forks: to be called in a child, or by a process
 * that will not fork.
 */
bool worker_check_project(const char *project_dir, const struct environment *environment, struct project_store *store)
    __attribute__((warn_unused_result));

/* Can clients be served with these files? Likewise for a child; NULL is good. */
bool worker_check_tls(const struct tls_files *files) __attribute__((warn_unused_result));

/* Are ca_file and proxy good to reach the sandbox service with? Likewise for a child. */
bool worker_check_upstream(const struct settings *settings) __attribute__((warn_unused_result));

/* Says in the log where telemetry goes, and what of its variables cannot be used, if it is on. Likewise for a child. */
void worker_check_telemetry(const struct environment *environment);

/*
 * The history of runs on disk, for the master's children too: into the table at start, before any worker; and made
 * small again, at any time. False after a log line.
 */
bool worker_restore_history(const char *state_dir, struct scoreboard *scoreboard) __attribute__((warn_unused_result));
bool worker_compact_history(const char *state_dir, struct scoreboard *scoreboard) __attribute__((warn_unused_result));

/*
 * What `sandstorm status` prints to stdout about an instance whose scoreboard was mapped, for a person or as JSON.
 * False when it could not be made or written.
 */
bool worker_print_status(const struct scoreboard *scoreboard, pid_t master, bool json)
    __attribute__((warn_unused_result));

#endif
