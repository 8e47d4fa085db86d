/*
 * child: what every forked process of the master has in common.
 */
#ifndef MASTER_CHILD_H
#define MASTER_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Enough for every text of child_describe_exit(). */
#define CHILD_EXIT_TEXT_BYTES 96

/*
 * fork() with all signals blocked, so that none meets the child with the master's dispositions. In the child all
 * signals are at their defaults, but those of the 0-terminated list ignored, and none is blocked. Returns as fork().
 */
pid_t child_fork(const int *ignored) __attribute__((warn_unused_result));

/*
 * Has the kernel send this signal when the parent dies; exits with 1 if it is dead already. For a fresh child, after
 * its change of user, which forgets it.
 */
void child_follow(pid_t parent, int signal_number);

/* Waits for the end of a child; false with errno. */
bool child_wait(pid_t pid, int *status) __attribute__((warn_unused_result));

/* Closes every descriptor above 2 that is not in keep[]. For a fresh child. Reorders keep[]. */
void child_close_others(int *keep, size_t count);

/* A wait status in words: "exit code 3", "killed by SIGKILL". Returns out. */
const char *child_describe_exit(int status, char out[static CHILD_EXIT_TEXT_BYTES]);

#endif
