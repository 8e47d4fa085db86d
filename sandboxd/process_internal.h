/* What the files of the processes share: a life (process.c), its start (process_start.c), its input (process_input.c).
 */
#ifndef SANDBOXD_PROCESS_INTERNAL_H
#define SANDBOXD_PROCESS_INTERNAL_H

#include "sandboxd/process.h"

#include <event2/event.h>

enum process_state {
    PROCESS_SPAWNING, /* ordered; no pid */
    PROCESS_RUNNING,  /* it has a pid */
    PROCESS_EXITED,   /* its status is known; a pipe may still be open */
    PROCESS_ENDED,    /* told; kept for a while, so that its exit can be asked for */
};

/* Bytes on their way into a process. */
struct process_input {
    STAILQ_ENTRY(process_input) next;
    process_written written;
    void *arg;
    size_t length;
    size_t done;
    char bytes[];
};

LIST_HEAD(subscriber_list, process_subscriber);
STAILQ_HEAD(input_list, process_input);

struct process {
    LIST_ENTRY(process) next;
    struct event_base *base;
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    enum process_state state;
    pid_t pid;
    int wait_status;
    bool abandoned; /* SIGKILL or SIGTERM was sent through us: its pipes are not waited for */
    json_t *config; /* NULL once it ended */
    char *tag;
    bool has_pty;
    struct process_size size; /* of the terminal, as it was asked for */
    int fds[PROCESS_OUTPUTS]; /* our ends, -1 at their end */
    struct event *readable[PROCESS_OUTPUTS];
    struct event *rest;  /* ends the pause after output that nobody listens to; made when first needed */
    struct event *timer; /* Connect-Timeout-Ms; once it ended, how long it is kept */
    struct subscriber_list subscribers;

    int input_fd;       /* stdin's or the terminal's, or -1 */
    bool input_closing; /* closed when the queue is empty */
    size_t input_bytes; /* in the queue */
    struct event *writable;
    struct input_list inputs;
};

/* Ends it with an error before it has a pid, and frees it. */
void process_fail(struct process *process, enum rpc_code code, const char *message);
/* Frees it. It hangs on nothing any more. */
void process_free(struct process *process);
/* Makes the events of one output, which are not added yet; false when memory is out. */
bool process_watch_output(struct process *process, enum process_output output) __attribute__((warn_unused_result));
/* It has a pid: tells those who listen, and reads from now on. */
void process_began(struct process *process, pid_t pid);
/* The sandbox ends; see sandbox_watch. */
void process_sandbox_ended(struct sandbox_watch *watch);
/* The timer of a process; see process.timer. */
void process_on_timer(evutil_socket_t fd, short what, void *arg);

/* Closes the input; whoever waits for a write hears the reason; NULL: the sandbox ends. */
void process_input_drop(struct process *process, const char *reason);

#endif
