/*
 * reload: HUP. Everything is read and checked first; then a new generation starts beside the old one, which drains once
 * the new one serves. What goes wrong before that changes nothing, and is told.
 *
 * No more than RELOAD_OLD_MAX old generations drain at a time: the reload after those waits until one of them is gone,
 * at the latest when its graceful_timeout is over. Ending its streams to be faster would cut what a reload promises not
 * to. HUPs that come while one waits or is under way are one more reload, which follows.
 */
#ifndef MASTER_RELOAD_H
#define MASTER_RELOAD_H

#include "master/master_state.h"

#include <stdint.h>

/* Does what can be done now: begins the reload that is wanted, fills the new generation, ends the reload. */
void reload_advance(struct master *master, int64_t now_ms);

/* May another generation take over from the current one now? Tells once, with what waits, why not. */
bool reload_has_room(struct master *master, const char *what);

#endif
