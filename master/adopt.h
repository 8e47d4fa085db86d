/*
 * adopt: the other side of an upgrade: a program that was executed in the place of a master takes over what that had.
 */
#ifndef MASTER_ADOPT_H
#define MASTER_ADOPT_H

#include "master/handover.h"
#include "master/master_state.h"

#include <stdbool.h>

/*
 * Makes a serving master of what was handed over, in which a reload is wanted: it brings the first workers of this
 * program. False after a log line: the workers will see their master end.
 */
bool adopt_master(struct master *master, const struct handover *handover) __attribute__((warn_unused_result));

#endif
