#include "master/generation.h"

#include "common/log.h"
#include "common/project_store.h"

#include <stdlib.h>

struct generation *generation_new(struct settings_load *load, const struct worker_plan *plan)
{
    struct generation *generation = calloc(1, sizeof *generation);

    if (generation == NULL)
        return NULL;
    generation->state = GENERATION_STARTING;
    generation->load = load;
    generation->plan = *plan;
    generation->plan.settings = settings_load_values(load);
    generation->plan.environment = settings_load_environment(load);
    if (!tls_files_read(generation->plan.settings, &generation->plan.tls_files)) {
        free(generation);
        return NULL;
    }
    for (int64_t i = 0; i < generation->plan.settings->workers; i++)
        generation->seats[i].wanted = true;
    return generation;
}

void generation_free(struct generation *generation)
{
    if (generation == NULL)
        return;
    settings_load_free(generation->load);
    project_store_free(generation->plan.project_store);
    tls_files_free(generation->plan.tls_files);
    free(generation);
}

void generation_clear_seats(struct generation *generation)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++)
        generation->seats[i] = (struct seat){.wanted = false};
    generation->state = GENERATION_SERVING;
}

void generation_seat(struct generation *generation, struct worker *worker)
{
    generation->seats[worker->seat] = (struct seat){.wanted = true, .worker = worker};
}

static bool is_vacant(const struct seat *seat)
{
    return seat->wanted && seat->worker == NULL;
}

/* A fork that failed: fatal for a generation that never served, else tried again as after a death. */
static void note_failed_fork(struct generation *generation, struct seat *seat, int64_t now_ms)
{
    if (generation->state == GENERATION_STARTING)
        generation->state = GENERATION_FAILED;
    throttle_note_death(&seat->throttle, now_ms, 0, false);
}

void generation_fill(struct generation *generation, struct workers *workers, int64_t now_ms)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX && generation->state != GENERATION_FAILED; i++) {
        struct seat *seat = &generation->seats[i];

        if (!is_vacant(seat) || now_ms < seat->throttle.not_before_ms)
            continue;
        seat->worker = workers_spawn(workers, &generation->plan, i);
        if (seat->worker == NULL)
            note_failed_fork(generation, seat, now_ms);
    }
}

int64_t generation_deadline_ms(const struct generation *generation)
{
    int64_t earliest_ms = -1;

    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX && generation->state != GENERATION_FAILED; i++) {
        const struct seat *seat = &generation->seats[i];

        if (is_vacant(seat) && (earliest_ms < 0 || seat->throttle.not_before_ms < earliest_ms))
            earliest_ms = seat->throttle.not_before_ms;
    }
    return earliest_ms;
}

/* Who drains in its place grows no more than what serves: runs may be long, and limits low. */
static bool may_recycle(const struct generation *generation, struct workers *workers)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++) {
        if (generation->seats[i].successor != NULL)
            return false;
    }
    return workers_count_draining(workers, generation->plan.generation) < generation_wanted(generation);
}

void generation_recycle(struct generation *generation, struct workers *workers, int64_t now_ms)
{
    if (generation->state != GENERATION_SERVING)
        return;
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++) {
        struct seat *seat = &generation->seats[i];

        if (seat->worker == NULL || now_ms < seat->throttle.not_before_ms || !workers_is_spent(workers, seat->worker))
            continue;
        if (!may_recycle(generation, workers))
            return;
        log_info("worker %d (pid %d) has served %lld runs or more: another one takes its place", seat->worker->slot,
                 (int)seat->worker->pid, (long long)seat->worker->run_limit);
        seat->successor = workers_spawn(workers, &generation->plan, i);
        if (seat->successor == NULL)
            note_failed_fork(generation, seat, now_ms);
        return;
    }
}

static void begin_to_serve(struct generation *generation)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++) {
        const struct seat *seat = &generation->seats[i];

        if (seat->wanted && (seat->worker == NULL || !seat->worker->was_ready))
            return;
    }
    generation->state = GENERATION_SERVING;
}

void generation_admitted(struct generation *generation, struct workers *workers, struct worker *worker)
{
    struct seat *seat = &generation->seats[worker->seat];
    struct worker *spent = seat->worker;

    if (generation->state == GENERATION_STARTING)
        begin_to_serve(generation);
    if (seat->successor != worker)
        return;
    seat->worker = worker;
    seat->successor = NULL;
    workers_event(workers, spent, EVENT_DRAIN);
}

void generation_buried(struct generation *generation, const struct worker *worker, bool finished_job, int64_t now_ms)
{
    struct seat *seat = &generation->seats[worker->seat];

    if (seat->worker == worker) {
        seat->worker = seat->successor; /* which is only a little early then */
        seat->successor = NULL;
    } else if (seat->successor == worker) {
        seat->successor = NULL;
    } else {
        return;
    }
    if (generation->state == GENERATION_STARTING)
        generation->state = GENERATION_FAILED;
    throttle_note_death(&seat->throttle, now_ms, now_ms - worker->started_ms, finished_job);
    if (generation->state == GENERATION_SERVING && seat->throttle.not_before_ms > now_ms)
        log_warn("workers of seat %u die young: the next one starts in %lld s", worker->seat,
                 (long long)(seat->throttle.not_before_ms - now_ms) / 1000);
}

/* The seat is given up; who sat there, or was about to, drains. */
static void clear_seat(struct seat *seat, struct workers *workers)
{
    struct worker *const leaving[] = {seat->worker, seat->successor};

    *seat = (struct seat){.wanted = false};
    for (size_t i = 0; i < sizeof leaving / sizeof *leaving; i++) {
        if (leaving[i] != NULL)
            workers_event(workers, leaving[i], EVENT_DRAIN);
    }
}

void generation_retire(struct generation *generation, struct workers *workers)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++)
        clear_seat(&generation->seats[i], workers);
}

unsigned generation_wanted(const struct generation *generation)
{
    unsigned wanted = 0;

    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++)
        wanted += generation->seats[i].wanted;
    return wanted;
}

bool generation_grow(struct generation *generation)
{
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++) {
        if (!generation->seats[i].wanted) {
            generation->seats[i] = (struct seat){.wanted = true};
            return true;
        }
    }
    return false;
}

/* A seat nobody sits on goes first, then that of the oldest worker. */
static bool is_older(const struct seat *seat, const struct seat *than)
{
    if (than == NULL || than->worker == NULL)
        return than == NULL;
    return seat->worker == NULL || seat->worker->started_ms < than->worker->started_ms;
}

bool generation_shrink(struct generation *generation, struct workers *workers)
{
    struct seat *oldest = NULL;

    if (generation_wanted(generation) <= 1)
        return false;
    for (unsigned i = 0; i < SETTINGS_WORKERS_MAX; i++) {
        if (generation->seats[i].wanted && is_older(&generation->seats[i], oldest))
            oldest = &generation->seats[i];
    }
    clear_seat(oldest, workers);
    return true;
}
