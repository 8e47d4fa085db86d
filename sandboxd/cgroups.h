/*
 * cgroups: one control group per sandbox, where this process may make some.
 *
 * Version 2: below the group that systemd delegated to us (Delegate=yes) or that an ordinary user owns; as root without
 * delegation, below the root of the hierarchy. Version 1 (and hybrid machines): below our own group of each controller
 * that we may write to. Limits hold for all processes of a sandbox together. The CPU is shared by sandboxes, not by
 * processes: equally among those that use much of it, who yield to those that use little (cgroup_shares.c). Ours is the
 * group sandboxd.PID, locked while we live; groups of a sandboxd that was killed are removed at the next start.
 */
#ifndef SANDBOXD_CGROUPS_H
#define SANDBOXD_CGROUPS_H

#include "sandboxd/jail.h"

#include <stdbool.h>

struct cgroups;

/* NULL when there are none to be had; reason says why. */
struct cgroups *cgroups_new(const struct jail_limits *limits, char reason[static JAIL_ERROR_MAX_BYTES])
    __attribute__((warn_unused_result));
/* Removes all groups: every sandbox must have ended. NULL is allowed. */
void cgroups_free(struct cgroups *cgroups);

/* What is in use, for the log: "cgroup v2: memory, pids, cpu". */
const char *cgroups_words(const struct cgroups *cgroups);
/* Whether the memory of a whole sandbox is limited. */
bool cgroups_limit_memory(const struct cgroups *cgroups);

/* Makes the group of a slot with its limits; false with errno. Remove it in either case. */
bool cgroups_make(struct cgroups *cgroups, unsigned slot) __attribute__((warn_unused_result));
/* Moves the calling process into the group of a slot; false with errno. */
bool cgroups_enter(const struct cgroups *cgroups, unsigned slot) __attribute__((warn_unused_result));
/* To be called every JAIL_BALANCE_MS: sandboxes that use much of the CPU yield to those that use little. */
void cgroups_balance(struct cgroups *cgroups, const bool used_slots[static JAIL_SLOTS_MAX]);

/* Removes the group of a slot. One in which a process is still dying goes with the next one or with cgroups_free(). */
void cgroups_remove(struct cgroups *cgroups, unsigned slot);

#endif
