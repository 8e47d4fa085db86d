/*
 * process: one command in a sandbox, begun by Process/Start (spec/e2b.md 0.9).
 *
 * It runs until it exits and its output is at its end, whoever listens; output that nobody listens to is read and
 * thrown away, at a bounded rate. A subscriber that cannot keep up pauses the output for all, so that the command
 * blocks in write(2). Its exit is kept for PROCESS_KEPT_S seconds for those who ask later.
 */
#ifndef SANDBOXD_PROCESS_H
#define SANDBOXD_PROCESS_H

#include "sandboxd/rpc.h"
#include "sandboxd/sandbox.h"

#include <stdint.h>

/* Raw bytes in one data event; of a terminal half as many. */
#define PROCESS_OUTPUT_MAX_BYTES 32768
#define PROCESS_KEPT_S           30
/* Exits kept in one sandbox; the oldest goes first. */
#define PROCESS_KEPT_MAX 256
/* Input that waits for a process that does not read, before more is refused. */
#define PROCESS_INPUT_MAX_BYTES ((size_t)8 * 1024 * 1024)

enum process_output { PROCESS_STDOUT, PROCESS_STDERR, PROCESS_PTY, PROCESS_OUTPUTS };

struct process;

/* What a subscriber hears, in this order: started, output…, and one of ended and failed; or failed alone. It must not
 * end the sandbox from in there, nor leave. */
struct process_listener {
    void (*started)(void *arg, pid_t pid);
    void (*output)(void *arg, enum process_output output, const char *bytes, size_t length);
    /* All output is at its end; the process still runs. */
    void (*silent)(void *arg);
    /* Nothing comes after these two; the subscriber has left. */
    void (*ended)(void *arg, int wait_status);
    void (*failed)(void *arg, enum rpc_code code, const char *message);
};

/* Who listens to a process. Embedded by its owner, who sets listener and arg. */
struct process_subscriber {
    const struct process_listener *listener;
    void *arg;
    LIST_ENTRY(process_subscriber) next;
    struct process *process; /* NULL: it has left, or was never there */
    bool slow;
};

/* Of a terminal, in characters. */
struct process_size {
    uint16_t cols;
    uint16_t rows;
};

/* Read from the request of Start. */
struct process_wish {
    const char *cmd;
    const json_t *args; /* array of strings, or NULL */
    const json_t *envs; /* object of strings, or NULL */
    const char *cwd;    /* as the client wrote it; NULL: the home */
    const char *tag;    /* or NULL */
    bool has_pty;       /* a terminal is all three standard descriptors */
    struct process_size size;
    bool has_stdin; /* else /dev/null */
    bool has_deadline;
    uint64_t deadline_ms; /* kills the process */
};

/*
 * Starts it with a first subscriber. When the sandbox ends, its processes leave their subscribers without a call: each
 * has a watch of its own on the sandbox. False when it could not even be ordered, with the reason in errno.
 */
bool process_start(struct event_base *base, struct sandbox *sandbox, const struct process_wish *wish,
                   struct process_subscriber *subscriber) __attribute__((warn_unused_result));

/* Listens to a process that was found: it is told the start at once, and the end too when it has ended. */
void process_join(struct process *process, struct process_subscriber *subscriber);

/* The subscriber leaves, if it has not; the process runs on. */
void process_leave(struct process_subscriber *subscriber);

/* Stops and resumes the output of its process. */
void process_pause(struct process_subscriber *subscriber);
void process_resume(struct process_subscriber *subscriber);

/* The process with this pid or, if tag is not NULL, this tag, whose end was not told yet; or NULL. */
struct process *process_find(struct sandbox *sandbox, pid_t pid, const char *tag);
/* The same, or the last one that ended, while its exit is kept. */
struct process *process_find_kept(struct sandbox *sandbox, pid_t pid, const char *tag);

pid_t process_pid(const struct process *process);

/* SIGKILL and SIGTERM also end the collection of its output. */
void process_signal(struct process *process, int signal_number);

/* {"config":…,"pid":…,"tag":…} of every running process. */
json_t *process_list(struct sandbox *sandbox) __attribute__((warn_unused_result));

/* Init reported an exit (a hook of the sandbox). */
void process_exited(struct sandbox *sandbox, pid_t pid, int wait_status);

/* --- input (process_input.c) ---------------------------------------------------------------------- */

enum process_write_result {
    PROCESS_WRITE_QUEUED,
    PROCESS_WRITE_CLOSED, /* its input was not enabled, or is closed */
    PROCESS_WRITE_FULL,   /* PROCESS_INPUT_MAX_BYTES wait already */
};

enum process_written_result {
    PROCESS_WRITTEN,     /* all of it */
    PROCESS_NOT_WRITTEN, /* error says why, as a static text */
    PROCESS_WRITE_GONE,  /* the sandbox ends */
};

/* What became of a write. */
typedef void (*process_written)(void *arg, enum process_written_result result, const char *error);

/* Whether its input is a terminal. */
bool process_has_pty(const struct process *process);
/* Writes a copy of the bytes, after what was written before. written(arg) is called once if QUEUED, perhaps at once. */
enum process_write_result process_write(struct process *process, const void *bytes, size_t length,
                                        process_written written, void *arg) __attribute__((warn_unused_result));
/* Closes its stdin once all was written; nothing when it is closed. Not of a terminal. */
void process_close_stdin(struct process *process);
/* Changes the size of its terminal; false with errno. */
bool process_resize(struct process *process, const struct process_size *size) __attribute__((warn_unused_result));

/* --- text (process_text.c) ------------------------------------------------------------------------ */

/* Writes how it ended, in Go's words: "exit status 3", "signal: killed". Returns out. */
#define PROCESS_STATUS_MAX_BYTES 96
const char *process_status_text(int wait_status, char out[static PROCESS_STATUS_MAX_BYTES]);

/* An absolute path out of the client's (0.12): home, ~, relative to the home; allocated. NULL for ~other. */
char *process_resolve_path(const char *path) __attribute__((warn_unused_result));

#endif
