/*
 * status: `sandstorm status`: how the running server is, seen from another process.
 *
 * Reads the scoreboard of the master where /proc shows its descriptor, and asks the server nothing: so it works when no
 * worker answers. The master is the one that holds the lock of the state directory, or the one that is named.
 */
#ifndef MASTER_STATUS_H
#define MASTER_STATUS_H

#include "common/settings.h"

/* Exit codes: those of `systemctl status` and of LSB, where they have one. */
enum status_exit {
    STATUS_RUNS = 0,
    STATUS_UNSEEN = 1, /* it may run, but may not or cannot be looked at: the reason is on stderr */
    STATUS_STOPPED = 3,
};

/* Prints to stdout. The settings must be without errors unless a pid is given. */
enum status_exit status_print(const struct settings_load *load);

#endif
