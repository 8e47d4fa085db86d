#include "worker/scheduler.h"

#include "common/clock.h"
#include "common/fnv1a.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "common/run_table.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>

/* The wall clock may be set while a timer runs: it is looked at this often. */
#define LOOK_MS 1000
/* Nobody wants to hear of each second of a week. */
#define LATE_COUNTED_MAX 1000

/* A cron trigger and its place in the scoreboard. */
struct entry {
    const struct trigger *trigger;
    struct schedule_slot *slot;
};

struct scheduler {
    struct scoreboard *scoreboard;
    struct scheduler_handlers handlers;
    struct event *timer;
    bool is_running;
    size_t count;
    struct entry entries[SCOREBOARD_SCHEDULES_MAX];
};

static void on_timer(evutil_socket_t fd, short what, void *context);

struct scheduler *scheduler_new(struct event_base *base, struct scoreboard *scoreboard,
                                const struct trigger_set *triggers, const struct scheduler_handlers *handlers)
{
    struct scheduler *scheduler = calloc(1, sizeof *scheduler);

    if (scheduler == NULL)
        return NULL;
    scheduler->scoreboard = scoreboard;
    scheduler->handlers = *handlers;
    for (size_t i = 0; i < triggers->count && scheduler->count < SCOREBOARD_SCHEDULES_MAX; i++) {
        if (triggers->triggers[i].type == TRIGGER_CRON)
            scheduler->entries[scheduler->count++].trigger = &triggers->triggers[i];
    }
    scheduler->timer = evtimer_new(base, on_timer, scheduler);
    if (scheduler->timer != NULL)
        return scheduler;
    free(scheduler);
    return NULL;
}

void scheduler_free(struct scheduler *scheduler)
{
    if (scheduler == NULL)
        return;
    event_free(scheduler->timer);
    free(scheduler);
}

static int64_t now_s(void)
{
    return realtime_us() / 1000000;
}

/* --- places in the scoreboard ------------------------------------------------------------------------------ */

/* A trigger whose schedule changed begins anew. Never 0. */
static uint64_t key_of(const struct trigger *trigger)
{
    uint64_t key = fnv1a(FNV1A_START, trigger->name, strlen(trigger->name) + 1);

    return fnv1a(key, trigger->schedule, strlen(trigger->schedule)) | 1;
}

static struct schedule_slot *find_slot(struct scoreboard *scoreboard, uint64_t key)
{
    for (size_t i = 0; i < SCOREBOARD_SCHEDULES_MAX; i++) {
        if (atomic_load(&scoreboard->schedules[i].key) == key)
            return &scoreboard->schedules[i];
    }
    return NULL;
}

/* What triggers of generations before left behind. */
static void free_others(struct scheduler *scheduler)
{
    for (size_t i = 0; i < SCOREBOARD_SCHEDULES_MAX; i++) {
        struct schedule_slot *slot = &scheduler->scoreboard->schedules[i];
        uint64_t key = atomic_load(&slot->key);
        bool is_ours = false;

        for (size_t j = 0; j < scheduler->count; j++)
            is_ours = is_ours || key_of(scheduler->entries[j].trigger) == key;
        if (!is_ours)
            atomic_store(&slot->key, 0);
    }
}

/* There are as many slots as there may be triggers. A new one begins now: nothing is replayed. */
static void take_slots(struct scheduler *scheduler)
{
    free_others(scheduler);
    for (size_t i = 0; i < scheduler->count; i++) {
        struct entry *entry = &scheduler->entries[i];
        uint64_t key = key_of(entry->trigger);

        entry->slot = find_slot(scheduler->scoreboard, key);
        if (entry->slot != NULL)
            continue;
        entry->slot = find_slot(scheduler->scoreboard, 0);
        if (entry->slot == NULL)
            log_panic("scheduler: no slot for a trigger");
        atomic_store(&entry->slot->fired_s, now_s());
        atomic_store(&entry->slot->run_id, 0);
        atomic_store(&entry->slot->key, key);
    }
}

/* --- firing ------------------------------------------------------------------------------------------------ */

static bool still_runs(struct scoreboard *scoreboard, uint64_t run_id)
{
    int index = run_id != 0 ? run_table_find(scoreboard, run_id) : -1;
    struct run_copy copy = {.text = NULL};
    bool runs = index >= 0 && run_table_read(scoreboard, (unsigned)index, &copy) == RUN_READ_OK &&
                copy.record.id == run_id && copy.record.status == RUN_STATUS_RUNNING;

    run_copy_release(&copy);
    return runs;
}

static void skip(const struct entry *entry, enum metric_skip why, const char *reason)
{
    metrics_count(METRIC_TRIGGER_SKIPPED, entry->trigger->name, why, 1);
    log_warn_limited("trigger %s skipped: %s", entry->trigger->name, reason);
}

static void fire(struct scheduler *scheduler, struct entry *entry)
{
    uint64_t run_id = 0;

    if (still_runs(scheduler->scoreboard, atomic_load(&entry->slot->run_id))) {
        skip(entry, METRIC_SKIPPED_OVERLAP, "its last run still goes on");
        return;
    }
    switch (scheduler->handlers.fire(scheduler->handlers.context, entry->trigger, &run_id)) {
    case SCHEDULE_FIRED:
        atomic_store(&entry->slot->run_id, run_id);
        log_info("trigger %s fired: run %016llx", entry->trigger->name, (unsigned long long)run_id);
        break;
    case SCHEDULE_FULL:
        skip(entry, METRIC_SKIPPED_FULL, "max_runs are running");
        break;
    case SCHEDULE_FAILED:
    default:
        log_error("trigger %s could not be fired: out of memory", entry->trigger->name);
    }
}

/* The instant is ours, and nobody else's. */
static bool claim(struct entry *entry, int64_t last_s, int64_t instant_s)
{
    return atomic_compare_exchange_strong(&entry->slot->fired_s, &last_s, instant_s);
}

/* Instants that are too old; what is left begins within the last minute. */
static void skip_old(struct entry *entry, int64_t oldest_s)
{
    int64_t last_s = atomic_load(&entry->slot->fired_s);
    int64_t next_s = cron_next(&entry->trigger->cron, last_s);
    unsigned count = 0;

    while (next_s >= 0 && next_s < oldest_s && count < LATE_COUNTED_MAX) {
        count++;
        next_s = cron_next(&entry->trigger->cron, next_s);
    }
    if (count == 0 || !claim(entry, last_s, oldest_s - 1))
        return;
    metrics_count(METRIC_TRIGGER_SKIPPED, entry->trigger->name, METRIC_SKIPPED_LATE, count);
    log_warn("trigger %s skipped %u%s times: more than %d s late", entry->trigger->name, count,
             count == LATE_COUNTED_MAX ? " or more" : "", SCHEDULE_LATE_MAX_S);
}

/* All that is due. */
static void look_at(struct scheduler *scheduler, struct entry *entry)
{
    int64_t now = now_s();

    skip_old(entry, now - SCHEDULE_LATE_MAX_S);
    for (;;) {
        int64_t last_s = atomic_load(&entry->slot->fired_s);
        int64_t next_s = cron_next(&entry->trigger->cron, last_s);

        if (next_s < 0 || next_s > now)
            return;
        if (claim(entry, last_s, next_s))
            fire(scheduler, entry);
    }
}

/* --- time -------------------------------------------------------------------------------------------------- */

/* To the beginning of the next second. */
static int64_t wait_ms(void)
{
    return LOOK_MS - realtime_us() / 1000 % LOOK_MS;
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct scheduler *scheduler = context;

    (void)fd;
    (void)what;
    for (size_t i = 0; i < scheduler->count && scheduler->is_running; i++)
        look_at(scheduler, &scheduler->entries[i]);
    if (scheduler->is_running)
        timer_start(scheduler->timer, wait_ms());
}

void scheduler_start(struct scheduler *scheduler)
{
    if (scheduler->is_running || scheduler->count == 0)
        return;
    scheduler->is_running = true;
    take_slots(scheduler);
    log_info("firing %zu schedules", scheduler->count);
    timer_start(scheduler->timer, wait_ms());
}

void scheduler_stop(struct scheduler *scheduler)
{
    scheduler->is_running = false;
    event_del(scheduler->timer);
}
