/*
 * sandbox-init: pid 1 of a sandbox.
 *
 * bwrap starts it as its only command. It takes orders from sandboxd over the control socket (control.h), one at a
 * time: spawn a command, signal it, open a file, listen. It reaps whatever ends and reports the commands it spawned.
 * It ends, and with it every process of the sandbox, when the control socket closes. It runs as the sandbox's user
 * without capabilities; it cannot be traced or read by the commands (PR_SET_DUMPABLE 0), and all its descriptors are
 * close-on-exec.
 */
#ifndef SANDBOXD_INIT_INIT_H
#define SANDBOXD_INIT_INIT_H

#include "sandboxd/init/control.h"

#include <stdbool.h>
#include <sys/types.h>

/* Commands that run at once in one sandbox. */
#define CHILDREN_MAX 512

/* The spawned commands that still run. */
struct children {
    size_t count;
    pid_t pids[CHILDREN_MAX];
};

/* Runs CONTROL_SPAWN or CONTROL_SPAWN_PTY and fills the CONTROL_SPAWNED that answers it; the descriptor in the answer
 * is the caller's. */
void spawn_command(struct children *children, struct control_message *order, struct control_message *answer);

/* Sends the signal if the pid is a child that was not reaped yet; anything else is ignored. */
void signal_command(const struct children *children, pid_t pid, int signal_number);

/* Forgets a reaped child; false when it was none of the spawned ones (an orphan). */
bool forget_child(struct children *children, pid_t pid) __attribute__((warn_unused_result));

/* Runs CONTROL_OPEN and fills the CONTROL_OPENED that answers it; the answer's descriptor is the caller's. */
void open_file(const struct control_message *order, struct control_message *answer);

#endif
