#include "sandboxd/cgroups.h"
#include "sandboxd/cgroups_internal.h"

#include "common/log.h"
#include "sandboxd/jail_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Ours; the pid of the process follows. */
#define GROUP_PREFIX "sandboxd."
/* A killed sandboxd's processes are dying already; so long they are waited for, looked at so often. */
#define LEFTOVER_WAIT_MS 2000
#define LEFTOVER_LOOK_MS 10
#define CPU_PERIOD_US    100000u

/* --- limits --------------------------------------------------------------------------------------- */

/* The values; false when there is no limit to set. */
static bool memory_value(const struct jail_limits *limits, char *text, size_t size)
{
    /* What lies in the sandbox's places is memory too. It has limits of its own and takes nothing from programs. */
    snprintf(text, size, "%llu", ((unsigned long long)limits->memory_mib << 20) + jail_places_bytes(limits));
    return limits->memory_mib != 0;
}

static bool no_swap_value(const struct jail_limits *limits, char *text, size_t size)
{
    snprintf(text, size, "0");
    return limits->memory_mib != 0;
}

static bool pids_value(const struct jail_limits *limits, char *text, size_t size)
{
    snprintf(text, size, "%u", limits->processes);
    return true;
}

static bool quota_value(const struct jail_limits *limits, char *text, size_t size)
{
    snprintf(text, size, "%u", limits->cpu_percent * (CPU_PERIOD_US / 100));
    return limits->cpu_percent != 0;
}

static bool quota_and_period_value(const struct jail_limits *limits, char *text, size_t size)
{
    snprintf(text, size, "%u %u", limits->cpu_percent * (CPU_PERIOD_US / 100), CPU_PERIOD_US);
    return limits->cpu_percent != 0;
}

/* A group that is left of a sandbox that yielded (cgroup_shares.c) takes no share before this. */
static bool idle_value(const struct jail_limits *limits, char *text, size_t size)
{
    (void)limits;
    snprintf(text, size, "0");
    return true;
}

static bool shares_value(const struct jail_limits *limits, char *text, size_t size)
{
    (void)limits;
    snprintf(text, size, "%u", CGROUP_SHARES);
    return true;
}

static bool weight_value(const struct jail_limits *limits, char *text, size_t size)
{
    (void)limits;
    snprintf(text, size, "%u", CGROUP_WEIGHT);
    return true;
}

/* Files in the order in which they are written. */
static const struct {
    bool is_v2;
    enum cgroup_controller controller;
    const char *file;
    bool optional; /* a kernel without accounting of swap, or before 5.15, has no such file */
    bool (*value)(const struct jail_limits *limits, char *text, size_t size);
} limit_files[] = {
    {false, CGROUP_MEMORY, "memory.limit_in_bytes", false, memory_value},
    {false, CGROUP_MEMORY, "memory.memsw.limit_in_bytes", true, memory_value},
    {false, CGROUP_PIDS, "pids.max", false, pids_value},
    {false, CGROUP_CPU, "cpu.idle", true, idle_value},
    {false, CGROUP_CPU, "cpu.shares", false, shares_value},
    {false, CGROUP_CPU, "cpu.cfs_quota_us", false, quota_value}, /* of the default period, 100 ms */
    {true, CGROUP_MEMORY, "memory.max", false, memory_value},
    {true, CGROUP_MEMORY, "memory.swap.max", true, no_swap_value},
    {true, CGROUP_PIDS, "pids.max", false, pids_value},
    {true, CGROUP_CPU, "cpu.idle", true, idle_value},
    {true, CGROUP_CPU, "cpu.weight", false, weight_value},
    {true, CGROUP_CPU, "cpu.max", false, quota_and_period_value},
};

static bool set_limits(const struct cgroup_tree *tree, const char *group, const struct jail_limits *limits)
{
    for (size_t i = 0; i < sizeof limit_files / sizeof *limit_files; i++) {
        char text[64];

        if (limit_files[i].is_v2 != tree->is_v2 || !tree->has[limit_files[i].controller] ||
            !limit_files[i].value(limits, text, sizeof text))
            continue;
        if (!cgroup_write(group, limit_files[i].file, text) && !(limit_files[i].optional && errno == ENOENT))
            return false;
    }
    return true;
}

/* --- groups of sandboxes -------------------------------------------------------------------------- */

void cgroup_slot_path(const struct cgroup_tree *tree, unsigned slot, char path[static CGROUP_PATH_BYTES])
{
    snprintf(path, CGROUP_PATH_BYTES, "%s/%u", tree->path, slot);
}

bool cgroups_make(struct cgroups *cgroups, unsigned slot)
{
    cgroups->shares[slot] = (struct cgroup_share){.used_us = 0};
    for (size_t i = 0; i < cgroups->count; i++) {
        char path[CGROUP_PATH_BYTES];

        cgroup_slot_path(&cgroups->trees[i], slot, path);
        /* It may be there: of a sandbox whose last process is not quite dead. */
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return false;
        if (!set_limits(&cgroups->trees[i], path, &cgroups->limits))
            return false;
    }
    return true;
}

bool cgroups_enter(const struct cgroups *cgroups, unsigned slot)
{
    for (size_t i = 0; i < cgroups->count; i++) {
        char path[CGROUP_PATH_BYTES];

        cgroup_slot_path(&cgroups->trees[i], slot, path);
        if (!cgroup_write(path, "cgroup.procs", "0"))
            return false;
    }
    return true;
}

/* Removes the groups of one slot; false when one is still in use. */
static bool remove_slot(const struct cgroups *cgroups, unsigned slot)
{
    bool removed = true;

    for (size_t i = 0; i < cgroups->count; i++) {
        char path[CGROUP_PATH_BYTES];

        cgroup_slot_path(&cgroups->trees[i], slot, path);
        if (rmdir(path) < 0 && errno != ENOENT)
            removed = false;
    }
    return removed;
}

/* Tries again to remove what lingers, but for the slot that is in use again. */
static void remove_lingering(struct cgroups *cgroups)
{
    bool any = false;

    for (unsigned slot = 0; slot < JAIL_SLOTS_MAX && cgroups->any_lingers; slot++) {
        if (cgroups->lingers[slot])
            cgroups->lingers[slot] = !remove_slot(cgroups, slot);
        any = any || cgroups->lingers[slot];
    }
    cgroups->any_lingers = any;
}

void cgroups_remove(struct cgroups *cgroups, unsigned slot)
{
    remove_lingering(cgroups);
    if (remove_slot(cgroups, slot))
        return;
    cgroups->lingers[slot] = true;
    cgroups->any_lingers = true;
}

/* --- leftovers ------------------------------------------------------------------------------------ */

/* Kills what is left in a group. */
static void kill_group(const char *group)
{
    char path[PATH_MAX];
    FILE *file;
    int pid;

    if (snprintf(path, sizeof path, "%s/cgroup.procs", group) >= (int)sizeof path)
        return;
    file = fopen(path, "re");
    if (file == NULL)
        return;
    while (fscanf(file, "%d", &pid) == 1) {
        if (pid > 0)
            kill(pid, SIGKILL);
    }
    fclose(file);
}

/* Removes one group of a sandbox, whose processes may still be dying. Before the loop only: it waits. */
static bool remove_dying(const char *group)
{
    const struct timespec look = {.tv_nsec = LEFTOVER_LOOK_MS * 1000000L};

    for (int waited = 0; rmdir(group) < 0 && errno != ENOENT; waited += LEFTOVER_LOOK_MS) {
        if (errno != EBUSY || waited >= LEFTOVER_WAIT_MS)
            return false;
        kill_group(group);
        nanosleep(&look, NULL);
    }
    return true;
}

/* Removes the group of a sandboxd and those of its sandboxes. */
static bool remove_daemon_group(const char *path)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;
    bool removed = true;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char child[PATH_MAX];

        if (entry->d_type == DT_DIR && entry->d_name[0] != '.' &&
            snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < (int)sizeof child)
            removed = remove_dying(child) && removed;
    }
    if (folder != NULL)
        closedir(folder);
    return remove_dying(path) && removed;
}

/* The descriptor of a group that nobody else has locked, locked; or -1. */
static int lock_group(const char *path, int operation)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, operation) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Removes the groups of sandboxds that are no more: their locks went with them. */
static void remove_leftovers(const char *base)
{
    DIR *folder = opendir(base);
    const struct dirent *entry;

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char path[PATH_MAX];
        int lock;

        if (strncmp(entry->d_name, GROUP_PREFIX, sizeof GROUP_PREFIX - 1) != 0 ||
            snprintf(path, sizeof path, "%s/%s", base, entry->d_name) >= (int)sizeof path)
            continue;
        lock = lock_group(path, LOCK_EX | LOCK_NB);
        if (lock < 0)
            continue;
        if (remove_daemon_group(path))
            log_info("cgroup %s: removed, its sandboxd was killed", path);
        else
            log_warn("cgroup %s: left by a sandboxd that was killed, cannot be removed: %s", path, strerror(errno));
        close(lock);
    }
    if (folder != NULL)
        closedir(folder);
}

/* --- all of it ------------------------------------------------------------------------------------ */

/* Makes our own group below the base that the tree's path names, and lets the path name it; false with errno. */
static bool make_own(struct cgroup_tree *tree, int *lock)
{
    char base[PATH_MAX];
    /* While the base is locked nobody takes a group that is not locked yet for a leftover. */
    int base_lock = lock_group(tree->path, LOCK_EX);
    size_t used = strlen(tree->path);

    if (base_lock < 0)
        return false;
    strcpy(base, tree->path);
    remove_leftovers(base);
    snprintf(tree->path + used, sizeof tree->path - used, "/" GROUP_PREFIX "%d", (int)getpid());
    if (mkdir(tree->path, 0755) == 0)
        *lock = lock_group(tree->path, LOCK_EX | LOCK_NB);
    close(base_lock);
    return *lock >= 0 && (!tree->is_v2 || cgroup_turn_on(tree->path, tree->has));
}

/* Says what is in use. */
static void make_words(struct cgroups *cgroups)
{
    int used = snprintf(cgroups->words, sizeof cgroups->words, "cgroup v%d:", cgroups->trees[0].is_v2 ? 2 : 1);

    for (size_t i = 0; i < cgroups->count; i++) {
        for (int c = 0; c < CGROUP_CPUACCT; c++) {
            if (cgroups->trees[i].has[c])
                used += snprintf(cgroups->words + used, sizeof cgroups->words - (size_t)used, "%s%s",
                                 cgroups->words[used - 1] == ':' ? " " : ", ", cgroup_controller_names[c]);
        }
    }
}

struct cgroups *cgroups_new(const struct jail_limits *limits, char reason[static JAIL_ERROR_MAX_BYTES])
{
    struct cgroups *cgroups = calloc(1, sizeof *cgroups);
    size_t found;

    if (cgroups == NULL) {
        snprintf(reason, JAIL_ERROR_MAX_BYTES, "out of memory");
        return NULL;
    }
    cgroups->limits = *limits;
    found = cgroup_bases_find(cgroups->trees, reason);
    for (size_t i = 0; i < found; i++)
        cgroups->locks[i] = -1;
    for (; cgroups->count < found; cgroups->count++) {
        if (!make_own(&cgroups->trees[cgroups->count], &cgroups->locks[cgroups->count])) {
            snprintf(reason, JAIL_ERROR_MAX_BYTES, "cgroup %.256s: %s", cgroups->trees[cgroups->count].path,
                     strerror(errno));
            cgroups->count++;
            cgroups_free(cgroups);
            return NULL;
        }
    }
    if (found == 0) {
        cgroups_free(cgroups);
        return NULL;
    }
    make_words(cgroups);
    return cgroups;
}

void cgroups_free(struct cgroups *cgroups)
{
    if (cgroups == NULL)
        return;
    for (size_t i = 0; i < cgroups->count; i++) {
        if (cgroups->locks[i] < 0)
            continue;
        if (!remove_daemon_group(cgroups->trees[i].path))
            log_warn("cgroup %s cannot be removed: %s", cgroups->trees[i].path, strerror(errno));
        close(cgroups->locks[i]);
    }
    free(cgroups);
}

const char *cgroups_words(const struct cgroups *cgroups)
{
    return cgroups->words;
}

bool cgroups_limit_memory(const struct cgroups *cgroups)
{
    for (size_t i = 0; i < cgroups->count; i++) {
        if (cgroups->trees[i].has[CGROUP_MEMORY])
            return cgroups->limits.memory_mib != 0;
    }
    return false;
}
