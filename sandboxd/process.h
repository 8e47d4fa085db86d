/*
 * process: one command in a sandbox, begun by Process/Start (spec/e2b.md 0.9).
 *
 * It runs until it exits and both its output pipes are at their end, whoever listens; output that nobody listens to is
 * read and thrown away, at a bounded rate. A listener that cannot keep up pauses the pipes, so that the command blocks
 * in write(2).
 */
#ifndef SANDBOXD_PROCESS_H
#define SANDBOXD_PROCESS_H

#include "sandboxd/rpc.h"
#include "sandboxd/sandbox.h"

#include <stdint.h>

/* Raw bytes in one data event. */
#define PROCESS_OUTPUT_MAX_BYTES 32768

enum process_output { PROCESS_STDOUT, PROCESS_STDERR, PROCESS_OUTPUTS };

struct process;

/* What a listener hears, in this order: started, output…, and one of ended and failed; or failed alone. */
struct process_listener {
    void (*started)(void *arg, pid_t pid);
    void (*output)(void *arg, enum process_output output, const char *bytes, size_t length);
    /* Both pipes are at their end; the process still runs. */
    void (*silent)(void *arg);
    /* Nothing comes after these two. */
    void (*ended)(void *arg, int wait_status);
    void (*failed)(void *arg, enum rpc_code code, const char *message);
};

/* Read from the request of Start. */
struct process_wish {
    const char *cmd;
    const json_t *args; /* array of strings, or NULL */
    const json_t *envs; /* object of strings, or NULL */
    const char *cwd;    /* as the client wrote it; NULL: the home */
    const char *tag;    /* or NULL */
    bool has_stdin;     /* else /dev/null */
    bool has_deadline;
    uint64_t deadline_ms; /* kills the process */
};

/*
 * Starts it. A process whose sandbox ends is gone without a call: the listener has a watch of its own on the sandbox.
 * NULL when it could not even be ordered, with the reason in errno.
 */
struct process *process_start(struct event_base *base, struct sandbox *sandbox, const struct process_wish *wish,
                              const struct process_listener *listener, void *arg) __attribute__((warn_unused_result));

/* The listener leaves; the process runs on. */
void process_leave(struct process *process);

/* Stops and resumes the reading of its output. */
void process_pause(struct process *process);
void process_resume(struct process *process);

/* The running process with this pid or, if tag is not NULL, this tag; or NULL. */
struct process *process_find(struct sandbox *sandbox, pid_t pid, const char *tag);

/* SIGKILL and SIGTERM also end the collection of its output. */
void process_signal(struct process *process, int signal_number);

/* {"config":…,"pid":…,"tag":…} of every running process. */
json_t *process_list(struct sandbox *sandbox) __attribute__((warn_unused_result));

/* Init reported an exit (a hook of the sandbox). */
void process_exited(struct sandbox *sandbox, pid_t pid, int wait_status);

/* Writes how it ended, in Go's words: "exit status 3", "signal: killed". Returns out. */
#define PROCESS_STATUS_MAX_BYTES 96
const char *process_status_text(int wait_status, char out[static PROCESS_STATUS_MAX_BYTES]);

/* An absolute path out of the client's (0.12): home, ~, relative to the home; allocated. NULL for ~other. */
char *process_resolve_path(const char *path) __attribute__((warn_unused_result));

#endif
