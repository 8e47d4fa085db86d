/*
 * sandbox: the life of sandboxes, from bwrap's start to the last process's end.
 *
 * A sandbox is found by its id from the moment its init answered until its end begins. Its end has one order
 * (spec/e2b.md B.3): out of the table, everything that hangs on it told (they cut their connections), processes killed,
 * bwrap reaped, waiters of the end told, memory freed. Whatever hangs on a sandbox registers a watch.
 */
#ifndef SANDBOXD_SANDBOX_H
#define SANDBOXD_SANDBOX_H

#include "sandboxd/egress.h"
#include "sandboxd/endpoint.h"
#include "sandboxd/init/control.h"
#include "sandboxd/jail.h"
#include "sandboxd/pace.h"

#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/queue.h>
#include <sys/time.h>

/* "i" and 20 characters. */
#define SANDBOX_ID_BYTES    21
#define SANDBOX_TOKEN_BYTES 64
/* What we claim to be: every gate of e2b.md 0.4 is honoured. */
#define SANDBOX_ENVD_VERSION  "0.6.13"
#define SANDBOX_CLIENT_ID     "6532622b"
#define SANDBOX_TIMEOUT_MAX_S (24 * 60 * 60)

enum sandbox_state {
    SANDBOX_STARTING, /* bwrap runs, init has not answered; in no table */
    SANDBOX_RUNNING,  /* in the table of its id */
    SANDBOX_PAUSED,   /* in that table still: its processes are stopped, it takes no traffic and has no end */
    SANDBOX_ENDING,   /* killed, in the table of the ending; freed when bwrap is reaped */
};

struct channel;
struct process;
struct sandbox_table;

/* Something that hangs on a sandbox. Embedded by its owner. */
struct sandbox_watch {
    LIST_ENTRY(sandbox_watch) next;
    void (*ended)(struct sandbox_watch *watch); /* called once, after the watch was taken off */
    /* Called when a pause cuts the traffic of clients; may take its own watch off. NULL: it outlives pauses. */
    void (*paused)(struct sandbox_watch *watch);
};

/* What a client asks for. */
struct sandbox_wish {
    const char *template_name;
    const char *template_folder; /* of the host, or NULL */
    const json_t *metadata;      /* object or NULL */
    const json_t *envs;          /* object or NULL */
    int timeout_s;
    bool secure;
    bool auto_pause;       /* the end of its time pauses it */
    bool auto_resume;      /* traffic resumes it */
    const json_t *network; /* checked by egress_new(), or NULL */
    bool without_internet; /* only what the operator allows, whatever the others have */
};

LIST_HEAD(process_list, process);
LIST_HEAD(watcher_list, watcher);

/* Fields are written by sandbox.c only, but for those that say whose they are. */
struct sandbox {
    char id[SANDBOX_ID_BYTES + 1];
    char token[SANDBOX_TOKEN_BYTES + 1]; /* "" when not secure */
    char *template_name;
    json_t *metadata; /* NULL when none was given */
    json_t *envs;     /* the global environment of its commands */
    struct timeval started_at;
    struct timeval end_at; /* of a paused one: when it was paused */
    bool auto_pause;
    bool auto_resume;
    int timeout_s;                 /* the life it was asked to have */
    struct process_list processes; /* process.c's */
    struct watcher_list watchers;  /* envd_watcher.c's */
    unsigned watches;              /* envd_watch.c's: open ones, streams and watchers */
    unsigned filesystem_talks;     /* filesystem.c's */
    bool has_internet;
    json_t *network;           /* as it was given, or NULL */
    struct egress *egress;     /* its rules */
    unsigned gate_connections; /* gate.c's */
    struct pace gate_pace;     /* its connections' */

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
struct sandbox_table *sandbox_table_new(struct event_base *base, struct jail *jail, const struct network *network,
                                        const struct sandbox_hooks *hooks) __attribute__((warn_unused_result));
/* All sandboxes must have ended. */
void sandbox_table_free(struct sandbox_table *table);
/* Ends all sandboxes; done(arg) is called when the last one is gone, perhaps at once. */
void sandbox_table_end_all(struct sandbox_table *table, void (*done)(void *arg), void *arg);
/* Tells that a child of this process was reaped. */
void sandbox_table_reaped(struct sandbox_table *table, pid_t pid, int status);
/* How many there are, without those that end. */
unsigned sandbox_table_count(const struct sandbox_table *table);
/* Calls visit for every sandbox that runs or is paused. */
void sandbox_table_each(struct sandbox_table *table, void (*visit)(struct sandbox *sandbox, void *arg), void *arg);
/* The running or paused sandbox of this id, or NULL. */
struct sandbox *sandbox_find(struct sandbox_table *table, const char *id);

/* Reads what a create says of the network; it must outlive the wish. False with what is wrong with it. */
bool sandbox_wish_network(struct sandbox_wish *wish, const json_t *create, char error[static EGRESS_ERROR_MAX_BYTES])
    __attribute__((warn_unused_result));
/* Adds allowInternetAccess and network to what describes a sandbox. */
void sandbox_describe_network(const struct sandbox *sandbox, json_t *detail);

/* ready(sandbox, NULL, arg) or ready(NULL, reason, arg) is called once, from the loop, if this returns true. */
bool sandbox_start(struct sandbox_table *table, const struct sandbox_wish *wish,
                   void (*ready)(struct sandbox *sandbox, const char *reason, void *arg), void *arg,
                   char error[static JAIL_ERROR_MAX_BYTES]) __attribute__((warn_unused_result));

/* Begins the end; ended(arg), if any, is called when no process is left. why is for the log. */
void sandbox_end(struct sandbox *sandbox, const char *why, void (*ended)(void *arg), void *arg);

/* Lets a running one live for so long from now on. 0 ends it at once, from the loop. */
void sandbox_set_timeout(struct sandbox *sandbox, int timeout_s);
/* The same, but never shortens its life. */
void sandbox_extend(struct sandbox *sandbox, int timeout_s);

void sandbox_watch_add(struct sandbox *sandbox, struct sandbox_watch *watch);
void sandbox_watch_remove(struct sandbox_watch *watch);

/* Makes a descriptor of ours belong to the sandbox's user (jail_give). */
void sandbox_give(const struct sandbox *sandbox, int fd);
/* Adds the variables that make programs use the proxy inside, when something is reached by it; -1 when memory is out.
 */
int sandbox_add_proxy_envs(const struct sandbox *sandbox, json_t *envs) __attribute__((warn_unused_result));

/*
 * Called once with init's answer (its descriptors as in channel.h), or never, when the sandbox ends before: whoever
 * orders something has a watch on the sandbox too.
 */
typedef void (*sandbox_answer)(struct control_message *answer, void *arg);

/*
 * Pauses a running one: out of reach and its traffic cut when this returns. paused, if any, is called once every
 * process in it is stopped. false when too many orders wait for an answer.
 */
bool sandbox_pause(struct sandbox *sandbox, sandbox_answer paused, void *arg) __attribute__((warn_unused_result));
/* Lets a paused one run again, with so much time left; false as above. */
bool sandbox_resume(struct sandbox *sandbox, int timeout_s) __attribute__((warn_unused_result));

/* The orders of control.h. Descriptors are taken in every case; false when too many orders wait for an answer. */
bool sandbox_order_spawn(struct sandbox *sandbox, int argc, unsigned envc, const int fds[static CONTROL_FDS_MAX],
                         sandbox_answer answer, void *arg) __attribute__((warn_unused_result));
/* The same with a terminal of this size, which comes with the answer, as all three standard descriptors. */
bool sandbox_order_spawn_pty(struct sandbox *sandbox, int argc, unsigned envc, int strings_fd,
                             const struct winsize *window, sandbox_answer answer, void *arg)
    __attribute__((warn_unused_result));
bool sandbox_order_open(struct sandbox *sandbox, const char *path, enum control_open_mode mode, sandbox_answer answer,
                        void *arg) __attribute__((warn_unused_result));
/* A conversation of init/filesystem.h; takes the descriptor. Its end tells when it went wrong. */
void sandbox_order_filesystem(struct sandbox *sandbox, int fd);
void sandbox_order_signal(struct sandbox *sandbox, pid_t pid, int signal_number);

#endif
