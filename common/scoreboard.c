#include "common/scoreboard.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/run_table.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Changes with each change of what is shared: a mapping of another layout is never read. */
static uint64_t layout(void)
{
    return UINT64_C(0x53414e4453000000) + sizeof(struct scoreboard) + RUN_TABLE_LAYOUT + metrics_layout();
}

static size_t bytes_for(const struct scoreboard_sizes *sizes)
{
    return sizeof(struct scoreboard) + run_table_bytes(sizes) + metrics_bytes();
}

static void *map(int fd, size_t bytes, bool writable)
{
    void *mapping = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED | MAP_NORESERVE, fd, 0);

    return mapping != MAP_FAILED ? mapping : NULL;
}

struct scoreboard *scoreboard_new(const struct scoreboard_sizes *sizes, int *fd)
{
    struct scoreboard *scoreboard = NULL;
    size_t bytes = bytes_for(sizes);
    int made = memfd_create(SCOREBOARD_FILE_NAME, MFD_CLOEXEC);
    int saved_errno;

    if (made < 0)
        return NULL;
    if (ftruncate(made, (off_t)bytes) == 0)
        scoreboard = map(made, bytes, true);
    if (scoreboard == NULL || fd == NULL) {
        saved_errno = errno;
        close(made); /* a mapping keeps the memory */
        errno = saved_errno;
    }
    if (scoreboard == NULL)
        return NULL;
    if (fd != NULL)
        *fd = made;
    scoreboard->layout = layout();
    scoreboard->bytes = bytes;
    scoreboard->sizes = *sizes;
    scoreboard->run_slots = run_table_slots(sizes);
    scoreboard->started_us = realtime_us();
    return scoreboard;
}

struct scoreboard *scoreboard_map(int fd, bool writable)
{
    struct scoreboard *scoreboard;
    struct stat status;

    if (fstat(fd, &status) < 0)
        return NULL;
    if ((size_t)status.st_size < sizeof *scoreboard) {
        errno = EPROTO;
        return NULL;
    }
    scoreboard = map(fd, (size_t)status.st_size, writable);
    if (scoreboard == NULL)
        return NULL;
    if (scoreboard->layout == layout() && scoreboard->bytes == (uint64_t)status.st_size &&
        scoreboard->bytes == bytes_for(&scoreboard->sizes) &&
        scoreboard->run_slots == run_table_slots(&scoreboard->sizes))
        return scoreboard;
    munmap(scoreboard, (size_t)status.st_size);
    errno = EPROTO;
    return NULL;
}

void scoreboard_free(struct scoreboard *scoreboard)
{
    if (scoreboard != NULL)
        munmap(scoreboard, scoreboard->bytes);
}

/* A free slot becomes that of a new worker. */
static void begin_slot(struct scoreboard *scoreboard, int index, unsigned generation)
{
    struct worker_slot *slot = &scoreboard->slots[index];

    atomic_store(&slot->generation, generation);
    atomic_store(&slot->live_runs, 0);
    atomic_store(&slot->connections, 0);
    atomic_store(&slot->failed_kills, 0);
    atomic_store(&slot->history_fails, false);
    atomic_store(&slot->ended_runs, 0);
    atomic_store(&slot->heartbeat_ms, monotonic_ms());
    atomic_store(&slot->serial,
                 (atomic_fetch_add(&scoreboard->serials, 1) + 1) * SCOREBOARD_SLOTS_MAX + (unsigned)index);
    if (atomic_load(&scoreboard->slots_end) <= (unsigned)index)
        atomic_store(&scoreboard->slots_end, (unsigned)index + 1);
}

int scoreboard_take_slot(struct scoreboard *scoreboard, unsigned generation)
{
    for (int i = 0; i < SCOREBOARD_SLOTS_MAX; i++) {
        if (atomic_load(&scoreboard->slots[i].state) != WORKER_FREE)
            continue;
        begin_slot(scoreboard, i, generation);
        atomic_store(&scoreboard->slots[i].state, WORKER_STARTING);
        return i;
    }
    return -1;
}

void scoreboard_hold_slot(struct scoreboard *scoreboard, int slot, unsigned generation, pid_t pid)
{
    begin_slot(scoreboard, slot, generation);
    atomic_store(&scoreboard->slots[slot].pid, (int)pid);
    atomic_store(&scoreboard->slots[slot].state, WORKER_DRAINING);
}

unsigned scoreboard_release_slot(struct scoreboard *scoreboard, int slot)
{
    struct worker_slot *released = &scoreboard->slots[slot];
    unsigned held = atomic_exchange(&released->live_runs, 0);

    atomic_fetch_sub(&scoreboard->live_runs, held);
    atomic_store(&released->failed_kills, 0);
    atomic_store(&released->history_fails, false);
    atomic_store(&released->serial, 0);
    atomic_store(&released->pid, 0);
    atomic_store(&released->state, WORKER_FREE);
    return held;
}

bool scoreboard_admit_run(struct scoreboard *scoreboard, int slot)
{
    unsigned live = atomic_load(&scoreboard->live_runs);

    do {
        if (live >= scoreboard->sizes.max_runs)
            return false;
    } while (!atomic_compare_exchange_weak(&scoreboard->live_runs, &live, live + 1));
    atomic_fetch_add(&scoreboard->slots[slot].live_runs, 1);
    return true;
}

void scoreboard_end_run(struct scoreboard *scoreboard, int slot)
{
    atomic_fetch_sub(&scoreboard->slots[slot].live_runs, 1);
    atomic_fetch_add(&scoreboard->slots[slot].ended_runs, 1);
    atomic_fetch_sub(&scoreboard->live_runs, 1);
}

unsigned scoreboard_failed_kills(const struct scoreboard *scoreboard)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++)
        sum += atomic_load(&scoreboard->slots[i].failed_kills);
    return sum;
}

bool scoreboard_history_fails(const struct scoreboard *scoreboard)
{
    for (unsigned i = 0; i < atomic_load(&scoreboard->slots_end); i++) {
        if (atomic_load(&scoreboard->slots[i].history_fails))
            return true;
    }
    return false;
}

bool scoreboard_is_alive(const struct scoreboard *scoreboard, uint64_t serial)
{
    return serial != 0 && atomic_load(&scoreboard->slots[SCOREBOARD_SERIAL_SLOT(serial)].serial) == serial;
}
