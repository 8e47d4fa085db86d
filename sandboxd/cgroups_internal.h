/* What the files of the control groups share: where they may be made (cgroup_base.c), and those made (cgroups.c). */
#ifndef SANDBOXD_CGROUPS_INTERNAL_H
#define SANDBOXD_CGROUPS_INTERNAL_H

#include "sandboxd/cgroups.h"

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* CGROUP_CPUACCT is of version 1 only, and only where it has a hierarchy of its own. */
enum cgroup_controller { CGROUP_MEMORY, CGROUP_PIDS, CGROUP_CPU, CGROUP_CPUACCT, CGROUP_CONTROLLERS };

/* As the kernel spells them. */
extern const char *const cgroup_controller_names[CGROUP_CONTROLLERS];

/* How a sandbox uses the CPU. */
struct cgroup_share {
    uint64_t used_us;
    uint64_t load_us; /* of one period, of late */
    bool yields;
};

/* A hierarchy in which sandboxes get groups. */
struct cgroup_tree {
    bool is_v2;
    bool has[CGROUP_CONTROLLERS];
    char path[PATH_MAX];
};

struct cgroups {
    struct jail_limits limits;
    char words[64];
    size_t count;
    struct cgroup_tree trees[CGROUP_CONTROLLERS]; /* their paths: our own group in them */
    int locks[CGROUP_CONTROLLERS];
    bool lingers[JAIL_SLOTS_MAX]; /* a process in it was still dying when it was to be removed */
    bool any_lingers;
    struct cgroup_share shares[JAIL_SLOTS_MAX];
};

#define CGROUP_PATH_BYTES (PATH_MAX + 64)
/* The kernel's defaults for a group's part of the CPU, in versions 1 and 2. */
#define CGROUP_SHARES 1024u
#define CGROUP_WEIGHT 100u

/* The path of a slot's group. */
void cgroup_slot_path(const struct cgroup_tree *tree, unsigned slot, char path[static CGROUP_PATH_BYTES]);

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
