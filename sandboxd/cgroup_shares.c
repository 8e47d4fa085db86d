/*
 * Who gets the CPU first when it is short. Equal parts would make a command that takes 10 ms take 50 beside four
 * sandboxes that compute for hours, to whom its 10 ms mean nothing. So a sandbox that has used more than half of the
 * average of late yields to the others. Where all use the same, all yield: then their parts are equal.
 */
#include "sandboxd/cgroups_internal.h"

#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Who yields is idle to the kernel: anybody else who wakes up takes the CPU from it at once, not at the next tick
 * (measured: a command of 11 ms took 14 to 18 beside four attackers, and 25 to 30 where they had only a small part). A
 * kernel older than 5.15 knows no idle groups: there this part of what the others may have, and all that they leave. */
#define YIELD_DIVISOR 50u
/* Below this much in a period nobody is counted. */
#define LOAD_MIN_US 2000u
#define NS_PER_US   1000u

/* Reads the CPU time of a group out of its file; false when it has none. */
static bool read_time(const struct cgroup_tree *tree, const char *group, uint64_t *used_us)
{
    char path[CGROUP_PATH_BYTES + 32];
    FILE *file;
    bool read;

    snprintf(path, sizeof path, "%s/%s", group, tree->is_v2 ? "cpu.stat" : "cpuacct.usage");
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    read = tree->is_v2 ? fscanf(file, "usage_usec %" SCNu64, used_us) == 1 : fscanf(file, "%" SCNu64, used_us) == 1;
    fclose(file);
    if (read && !tree->is_v2)
        *used_us /= NS_PER_US;
    return read;
}

/* Brings the load of a sandbox up to date: half of it is of the last period. */
static void measure(struct cgroups *cgroups, unsigned slot)
{
    struct cgroup_share *share = &cgroups->shares[slot];

    for (size_t i = 0; i < cgroups->count; i++) {
        char group[CGROUP_PATH_BYTES];
        uint64_t used_us;

        cgroup_slot_path(&cgroups->trees[i], slot, group);
        if (!read_time(&cgroups->trees[i], group, &used_us))
            continue;
        share->load_us = (share->load_us + used_us - share->used_us) / 2;
        share->used_us = used_us;
        return;
    }
}

/* Sets a sandbox's part of the CPU. */
static void set_share(const struct cgroups *cgroups, unsigned slot, bool yields)
{
    for (size_t i = 0; i < cgroups->count; i++) {
        const struct cgroup_tree *tree = &cgroups->trees[i];
        char group[CGROUP_PATH_BYTES], text[16];

        if (!tree->has[CGROUP_CPU])
            continue;
        cgroup_slot_path(tree, slot, group);
        if (cgroup_write(group, "cpu.idle", yields ? "1" : "0") && yields)
            continue;
        snprintf(text, sizeof text, "%u", (tree->is_v2 ? CGROUP_WEIGHT : CGROUP_SHARES) / (yields ? YIELD_DIVISOR : 1));
        if (!cgroup_write(group, tree->is_v2 ? "cpu.weight" : "cpu.shares", text))
            log_warn("cgroup %s: part of the CPU: %s", group, strerror(errno));
    }
}

void cgroups_balance(struct cgroups *cgroups, const bool used_slots[static JAIL_SLOTS_MAX])
{
    uint64_t sum_us = 0, users = 0;

    for (unsigned slot = 0; slot < JAIL_SLOTS_MAX; slot++) {
        if (!used_slots[slot])
            continue;
        measure(cgroups, slot);
        if (cgroups->shares[slot].load_us >= LOAD_MIN_US) {
            sum_us += cgroups->shares[slot].load_us;
            users++;
        }
    }
    for (unsigned slot = 0; slot < JAIL_SLOTS_MAX; slot++) {
        struct cgroup_share *share = &cgroups->shares[slot];
        bool yields = share->load_us >= LOAD_MIN_US && share->load_us * 2 * users > sum_us;

        if (used_slots[slot] && yields != share->yields)
            set_share(cgroups, slot, yields);
        share->yields = used_slots[slot] && yields;
    }
}
