/*
 * sandbox: the life of sandboxes, from bwrap's start to the last process's end.
 *
 * A sandbox is found by its id from the moment its init answered until its end begins. Its end has one order
 * (spec/e2b.md B.3): out of the table, everything that hangs on it told (they cut their connections), processes killed,
 * bwrap reaped, waiters of the end told, memory freed. Whatever hangs on a sandbox registers a watch.
 */
#ifndef SANDBOXD_SANDBOX_H
#define SANDBOXD_SANDBOX_H

#include "sandboxd/endpoint.h"
#include "sandboxd/init/control.h"
#include "sandboxd/jail.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <sys/queue.h>
#include <sys/time.h>

/* "i" and 20 characters. */
#define SANDBOX_ID_BYTES    21
#define SANDBOX_TOKEN_BYTES 64
/* What we claim to be: without octet-stream metadata, so no newer. */
#define SANDBOX_ENVD_VERSION  "0.6.1"
#define SANDBOX_CLIENT_ID     "6532622b"
#define SANDBOX_TIMEOUT_MAX_S (24 * 60 * 60)

enum sandbox_state {
    SANDBOX_STARTING, /* bwrap runs, init has not answered; in no table */
    SANDBOX_RUNNING,  /* in the table of its id */
    SANDBOX_ENDING,   /* killed, in the table of the ending; freed when bwrap is reaped */
};

struct channel;
struct process;
struct sandbox_table;

/* Something that hangs on a sandbox. Embedded by its owner. */
struct sandbox_watch {
    LIST_ENTRY(sandbox_watch) next;
    void (*ended)(struct sandbox_watch *watch); /* called once, after the watch was taken off */
};

/* What a client asks for. */
struct sandbox_wish {
    const char *template_name;
    const char *template_folder; /* of the host, or NULL */
    const json_t *metadata;      /* object or NULL */
    const json_t *envs;          /* object or NULL */
    int timeout_s;
    bool secure;
};

LIST_HEAD(process_list, process);

/* Fields are written by sandbox.c only, but for the list of processes, which is process.c's. */
struct sandbox {
    char id[SANDBOX_ID_BYTES + 1];
    char token[SANDBOX_TOKEN_BYTES + 1]; /* "" when not secure */
    char *template_name;
    json_t *metadata; /* NULL when none was given */
    json_t *envs;     /* the global environment of its commands */
    struct timeval started_at;
    struct timeval end_at;
    struct process_list processes;
    unsigned gate_connections; /* gate.c's */

    enum sandbox_state state;
    unsigned slot;
    struct sandbox_table *table;
    struct sandbox_private *private;
    LIST_ENTRY(sandbox) next;
};

/* What sandboxes need from above, called with the sandbox alive. */
struct sandbox_hooks {
    void (*exited)(struct sandbox *sandbox, pid_t pid, int wait_status);
    /* A connection was made inside, to listener (see sandbox_table_new). The hook takes the descriptor. */
    void (*accepted)(struct sandbox *sandbox, unsigned listener, int fd, void *arg);
    void *arg;
};

/* The listener of the proxy inside; listener i + 1 stands for entry i of the endpoints. */
#define SANDBOX_PROXY_LISTENER 0
#define SANDBOX_PROXY_PORT     3128

/* All arguments must outlive the table. */
struct sandbox_table *sandbox_table_new(struct event_base *base, struct jail *jail, const struct endpoint_list *allowed,
                                        const struct sandbox_hooks *hooks) __attribute__((warn_unused_result));
/* All sandboxes must have ended. */
void sandbox_table_free(struct sandbox_table *table);
/* Ends all sandboxes; done(arg) is called when the last one is gone, perhaps at once. */
void sandbox_table_end_all(struct sandbox_table *table, void (*done)(void *arg), void *arg);
/* Tells that a child of this process was reaped. */
void sandbox_table_reaped(struct sandbox_table *table, pid_t pid, int status);
/* Calls visit for every sandbox that runs. */
void sandbox_table_each(struct sandbox_table *table, void (*visit)(struct sandbox *sandbox, void *arg), void *arg);
/* The running sandbox of this id, or NULL. */
struct sandbox *sandbox_find(struct sandbox_table *table, const char *id);

/* ready(sandbox, NULL, arg) or ready(NULL, reason, arg) is called once, from the loop, if this returns true. */
bool sandbox_start(struct sandbox_table *table, const struct sandbox_wish *wish,
                   void (*ready)(struct sandbox *sandbox, const char *reason, void *arg), void *arg,
                   char error[static JAIL_ERROR_MAX_BYTES]) __attribute__((warn_unused_result));

/* Begins the end; ended(arg), if any, is called when no process is left. why is for the log. */
void sandbox_end(struct sandbox *sandbox, const char *why, void (*ended)(void *arg), void *arg);

/* Lets it live for so long from now on. 0 ends it at once, from the loop. */
void sandbox_set_timeout(struct sandbox *sandbox, int timeout_s);

void sandbox_watch_add(struct sandbox *sandbox, struct sandbox_watch *watch);
void sandbox_watch_remove(struct sandbox_watch *watch);

/* Makes a descriptor of ours belong to the sandbox's user (jail_give). */
void sandbox_give(const struct sandbox *sandbox, int fd);
/* Adds the variables that make programs use the proxy inside, when an endpoint needs it; -1 when memory is out. */
int sandbox_add_proxy_envs(const struct sandbox *sandbox, json_t *envs) __attribute__((warn_unused_result));

/*
 * Called once with init's answer (its descriptors as in channel.h), or never, when the sandbox ends before: whoever
 * orders something has a watch on the sandbox too.
 */
typedef void (*sandbox_answer)(struct control_message *answer, void *arg);

/* The orders of control.h. Descriptors are taken in every case; false when too many orders wait for an answer. */
bool sandbox_order_spawn(struct sandbox *sandbox, int argc, unsigned envc, const int fds[static CONTROL_FDS_MAX],
                         sandbox_answer answer, void *arg) __attribute__((warn_unused_result));
bool sandbox_order_open(struct sandbox *sandbox, const char *path, enum control_open_mode mode, sandbox_answer answer,
                        void *arg) __attribute__((warn_unused_result));
void sandbox_order_signal(struct sandbox *sandbox, pid_t pid, int signal_number);

#endif
