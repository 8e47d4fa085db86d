#include "common/scoreboard.h"

#include "common/log.h"

#include <errno.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct scoreboard *scoreboard_new(unsigned max_runs)
{
    struct scoreboard *scoreboard;
    int fd = memfd_create("sandstorm-scoreboard", MFD_CLOEXEC);
    int saved_errno;

    if (fd < 0)
        return NULL;
    if (ftruncate(fd, sizeof *scoreboard) < 0)
        goto failed;
    scoreboard = mmap(NULL, sizeof *scoreboard, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (scoreboard == MAP_FAILED)
        goto failed;
    close(fd); /* the mapping keeps the memory */
    scoreboard->max_runs = max_runs;
    return scoreboard;

failed:
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return NULL;
}

void scoreboard_free(struct scoreboard *scoreboard)
{
    if (scoreboard != NULL)
        munmap(scoreboard, sizeof *scoreboard);
}

int scoreboard_take_slot(struct scoreboard *scoreboard, unsigned generation)
{
    for (int i = 0; i < SCOREBOARD_SLOTS_MAX; i++) {
        struct worker_slot *slot = &scoreboard->slots[i];

        if (atomic_load(&slot->state) != WORKER_FREE)
            continue;
        atomic_store(&slot->generation, generation);
        atomic_store(&slot->live_runs, 0);
        atomic_store(&slot->connections, 0);
        atomic_store(&slot->failed_kills, 0);
        atomic_store(&slot->ended_runs, 0);
        atomic_store(&slot->heartbeat_ms, monotonic_ms());
        if (atomic_load(&scoreboard->slots_end) <= (unsigned)i)
            atomic_store(&scoreboard->slots_end, (unsigned)i + 1);
        atomic_store(&slot->state, WORKER_STARTING);
        return i;
    }
    return -1;
}

unsigned scoreboard_release_slot(struct scoreboard *scoreboard, int slot)
{
    struct worker_slot *released = &scoreboard->slots[slot];
    unsigned held = atomic_exchange(&released->live_runs, 0);

    atomic_fetch_sub(&scoreboard->live_runs, held);
    atomic_store(&released->failed_kills, 0);
    atomic_store(&released->pid, 0);
    atomic_store(&released->state, WORKER_FREE);
    return held;
}

bool scoreboard_admit_run(struct scoreboard *scoreboard, int slot)
{
    unsigned live = atomic_load(&scoreboard->live_runs);

    do {
        if (live >= scoreboard->max_runs)
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

int64_t monotonic_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
