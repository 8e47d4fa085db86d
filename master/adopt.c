#include "master/adopt.h"

#include "common/log.h"
#include "master/master_signals.h"
#include "master/preflight.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The one of before; a fresh one when that is of another layout: then the workers of before are unseen from now on. */
static bool adopt_scoreboard(struct master *master, const struct handover *handover, bool *is_fresh)
{
    master->scoreboard = scoreboard_map(handover->scoreboard_fd, true);
    *is_fresh = master->scoreboard == NULL;
    if (!*is_fresh) {
        master->scoreboard_fd = handover->scoreboard_fd;
        return true;
    }
    log_warn("the scoreboard of before cannot be read (%s): GET /runs and the metrics begin anew; the runs of the %zu "
             "workers of before go on to their end, unseen",
             errno == EPROTO ? "it is of another version" : strerror(errno), handover->worker_count);
    close(handover->scoreboard_fd);
    return master_make_scoreboard(master);
}

/* Those that serve have a seat. One that was about to replace another comes too late: this program starts its own. */
static void adopt_workers(struct master *master, const struct handover *handover, bool is_fresh)
{
    for (size_t i = 0; i < handover->worker_count; i++) {
        struct worker worker = handover->workers[i];

        worker.is_unseen = worker.is_unseen || is_fresh;
        workers_adopt(master->workers, &worker);
    }
    for (size_t i = 0; i < handover->worker_count; i++) {
        size_t cursor = (size_t)handover->workers[i].slot;
        struct worker *worker = workers_next(master->workers, &cursor);

        if (worker->state == CHILD_SERVING)
            generation_seat(master->current, worker);
        else if (worker->state == CHILD_STARTING)
            workers_event(master->workers, worker, EVENT_DRAIN);
    }
}

static void adopt_history(struct master *master, const struct handover *handover, bool is_fresh)
{
    if (is_fresh)
        run_history_begin(&master->history, master->state_dir.path, master->scoreboard, &master->privileges);
    else
        run_history_adopt(&master->history, master->state_dir.path, master->scoreboard, &master->privileges,
                          handover->settled_lines);
    if (handover->compactor != 0 && master->history.compactor == 0)
        master->history.compactor = handover->compactor;
}

/* A generation of the old number, which fills only the seats its workers have. */
static bool adopt_generation(struct master *master, const struct handover *handover)
{
    master->generations = handover->generation - 1;
    master->current = master_make_generation(master, master->load, master->store, &master->listeners);
    master->generations = handover->generations;
    master->load = NULL;
    master->store = NULL;
    if (master->current == NULL)
        return false;
    generation_clear_seats(master->current);
    return true;
}

bool adopt_master(struct master *master, const struct handover *handover)
{
    const struct settings *settings = settings_load_values(master->load);
    bool is_fresh = false;

    handover_keep(handover, false);
    if (!log_use_file(settings->log_file))
        log_warn("the log goes to stderr until the next reload");
    master->listeners = handover->listeners;
    master->instance = strdup(handover->instance);
    master->store = project_store_new();
    if (master->instance == NULL || master->store == NULL || !master_open_signals(master) ||
        !privileges_resolve(&master->privileges, settings))
        return false;
    state_dir_adopt(&master->state_dir, settings->state_dir, handover->lock_fd);
    pid_file_adopt(&master->pid_file, settings->pid_file, handover->pid_file_fd);
    if (!adopt_scoreboard(master, handover, &is_fresh) || !master_make_workers(master))
        return false;
    if (handover->has_runtime && (master->runtime = runtime_adopt(settings, &handover->runtime)) == NULL)
        return false;
    if (!preflight_check_project(master->load, master->store, &master->privileges) ||
        !preflight_raise_descriptors(settings->max_runs))
        log_warn("the workers of before go on with the settings they have");
    if (!adopt_generation(master, handover))
        return false;
    adopt_workers(master, handover, is_fresh);
    adopt_history(master, handover, is_fresh);
    master->phase = MASTER_SERVING;
    master->reload_wanted = true;
    master_read_children(master); /* whose ends nobody saw meanwhile */
    log_info("sandstorm %s took over in process %d, with %zu workers of before", SANDSTORM_VERSION, (int)getpid(),
             workers_count(master->workers));
    return true;
}
