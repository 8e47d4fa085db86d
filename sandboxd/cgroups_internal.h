/* What the files of the control groups share: where they may be made (cgroup_base.c), and those made (cgroups.c). */
#ifndef SANDBOXD_CGROUPS_INTERNAL_H
#define SANDBOXD_CGROUPS_INTERNAL_H

#include "sandboxd/cgroups.h"

#include <limits.h>
#include <stddef.h>

enum cgroup_controller { CGROUP_MEMORY, CGROUP_PIDS, CGROUP_CPU, CGROUP_CONTROLLERS };

/* As the kernel spells them. */
extern const char *const cgroup_controller_names[CGROUP_CONTROLLERS];

/* A hierarchy in which sandboxes get groups. */
struct cgroup_tree {
    bool is_v2;
    bool has[CGROUP_CONTROLLERS];
    char path[PATH_MAX];
};

/*
 * Finds the groups below which ours can be made, the controllers turned on for their children; returns how many there
 * are. 0 with the reason: then limits are those of each process.
 */
size_t cgroup_bases_find(struct cgroup_tree trees[static CGROUP_CONTROLLERS], char reason[static JAIL_ERROR_MAX_BYTES])
    __attribute__((warn_unused_result));

/* Writes text to a file of a group; false with errno. */
bool cgroup_write(const char *group, const char *file, const char *text) __attribute__((warn_unused_result));

/* Turns the controllers on for the children of a group of version 2; false with errno. */
bool cgroup_turn_on(const char *group, const bool has[static CGROUP_CONTROLLERS]) __attribute__((warn_unused_result));

#endif
