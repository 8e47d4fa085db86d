/* check: whether this machine can run a sandbox at all, found out by running one. */
#ifndef SANDBOXD_CHECK_H
#define SANDBOXD_CHECK_H

#include "sandboxd/sandbox.h"

/*
 * Starts a sandbox without a template, runs true in it and ends it, on a loop that nothing else uses. The result and
 * what to change are printed; true when it worked.
 */
bool check_machine(struct event_base *base, struct sandbox_table *sandboxes) __attribute__((warn_unused_result));

#endif
