/*
 * master: the process manager. One loop over a signalfd, a socketpair per worker and the nearest deadline; it never
 * blocks, and knows nothing of HTTP.
 */
#ifndef MASTER_MASTER_H
#define MASTER_MASTER_H

#include "common/settings.h"

/*
 * Runs the server until it is told to stop. Takes the load over; argv is read again at each reload. Returns the exit
 * code of the program: 0 after an ordered stop, 1 when it could not start (the reason is in the log).
 */
int master_run(int argc, char *const argv[], struct settings_load *load) __attribute__((warn_unused_result));

#endif
