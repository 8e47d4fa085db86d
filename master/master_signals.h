/*
 * master_signals: what the master does on a signal: a table of numbers and handlers, read from a signalfd.
 */
#ifndef MASTER_MASTER_SIGNALS_H
#define MASTER_MASTER_SIGNALS_H

#include "master/master_state.h"

#include <stdbool.h>

/* From here on the signals of the table come through master->signal_fd only. False after a log line. */
bool master_open_signals(struct master *master) __attribute__((warn_unused_result));
/* Handles all that are waiting. Does not block. */
void master_read_signals(struct master *master);
/* Buries the children that have ended, as on SIGCHLD. */
void master_read_children(struct master *master);

#endif
