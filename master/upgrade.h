/*
 * upgrade: USR2. The program on disk takes this process over by exec: same pid, same children, same listening sockets,
 * same scoreboard. First the new program's --check is run in a child, which reads the same arguments, files and
 * variables and what it would take over (handover.h); when it is not content, nothing changes, and the reason is told.
 *
 * The new program adopts the workers as they are and then begins like a reload: a generation of its own starts, the old
 * one drains. When that fails the old workers go on, under the new master.
 */
#ifndef MASTER_UPGRADE_H
#define MASTER_UPGRADE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define UPGRADE_OUTPUT_MAX_BYTES 4096

enum upgrade_state {
    UPGRADE_NONE,
    UPGRADE_WANTED,   /* a USR2 that is still to be obeyed */
    UPGRADE_CHECKING, /* the new program's --check runs */
    UPGRADE_CHECKED,  /* it was content: the exec is next */
};

/* All zero but output_fd. */
struct upgrade {
    enum upgrade_state state;
    pid_t checker; /* 0: none */
    int output_fd; /* what it says; -1: nothing to wait for */
    char output[UPGRADE_OUTPUT_MAX_BYTES];
    size_t output_bytes;
};

#define UPGRADE_NONE_YET ((struct upgrade){.output_fd = -1})

struct master;

void upgrade_want(struct master *master);
/* Does what can be done now. Does not return when that is the exec, and the exec succeeds. */
void upgrade_advance(struct master *master);
/* Is one under way, so that no reload may begin? */
bool upgrade_is_under_way(const struct upgrade *upgrade);

/* When output_fd is readable. */
void upgrade_readable(struct upgrade *upgrade);
/* True if the dead child was the check. */
bool upgrade_reaped(struct master *master, pid_t pid, int status);
/* Kills a check that is under way. */
void upgrade_end(struct upgrade *upgrade);

#endif
