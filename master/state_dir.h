/*
 * state_dir: the directory in which an instance keeps what outlives it: its name, the history of its runs, and a lock
 * that keeps a second master out (http-api.md 16.7).
 *
 * A directory that cannot be made or written costs the history and the name, with one warning, never the start; only a
 * lock that is held does. The lock is the process's own (fcntl): children do not inherit it, the kernel tells who has
 * it, and it ends with the master, however that ends. It outlives an exec as long as lock_fd does; whoever opens and
 * closes the file a second time in this process loses it.
 */
#ifndef MASTER_STATE_DIR_H
#define MASTER_STATE_DIR_H

#include "master/privileges.h"

#include <stdbool.h>

struct state_dir {
    char *path; /* NULL: there is none */
    int fd;     /* of the directory, close-on-exec */
    int lock_fd;
};

/* What a state_dir is before it is opened. */
#define STATE_DIR_CLOSED ((struct state_dir){.path = NULL, .fd = -1, .lock_fd = -1})

/*
 * Makes the directory (0700, not its parents), takes its lock, and narrows the modes of what others may read. False
 * when another master holds the lock: the reason, with its pid, is in the log.
 */
bool state_dir_open(struct state_dir *dir, const char *path) __attribute__((warn_unused_result));
/* Instead, in a process that had its lock before an exec. lock_fd -1: there was none, and there is none now. */
void state_dir_adopt(struct state_dir *dir, const char *path, int lock_fd);
void state_dir_close(struct state_dir *dir);

/* Makes it and what is in it the workers' own, who write the history. Not if files that are not ours are there. */
void state_dir_give(const struct state_dir *dir, const struct privileges *privileges);

/* The name that is kept there, else a random one, kept from now on. The caller's; NULL after a log line. */
char *state_dir_instance(const struct state_dir *dir) __attribute__((warn_unused_result));

/* Warns of what state_dir_open() would stumble over, a held lock aside. Changes nothing. */
void state_dir_check(const char *path);

#endif
