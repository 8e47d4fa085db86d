#include "master/master.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/scoreboard.h"
#include "master/adopt.h"
#include "master/generation.h"
#include "master/handover.h"
#include "master/listen.h"
#include "master/master_signals.h"
#include "master/master_state.h"
#include "master/notify.h"
#include "master/preflight.h"
#include "master/reload.h"
#include "master/runtime.h"
#include "master/workers.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The loop looks at heartbeats at least this often. */
#define TICK_MS 1000
/* A loop that comes back later than this was itself stopped (a terminal's ^Z, a frozen machine). */
#define AWAY_MS 5000

static const struct settings *start_settings(const struct master *master)
{
    return settings_load_values(master->load);
}

static const struct environment *start_environment(const struct master *master)
{
    return settings_load_environment(master->load);
}

/* --- what the operator sees --------------------------------------------------------------------- */

static struct announced announced(const struct master *master)
{
    return (struct announced){
        .scoreboard = master->scoreboard, .workers = master->workers, .listeners = &master->listeners};
}

void master_tell_ready(struct master *master)
{
    const struct announced of = announced(master);

    announce_ready(&master->announcement, &of);
}

/* All an operator relies on, before anything is started with it. */
static void log_start(const struct master *master)
{
    const struct settings *s = start_settings(master);
    char addresses[ANNOUNCE_TEXT_MAX_BYTES];

    announce_addresses(&master->listeners, addresses, sizeof addresses);
    log_info("sandstorm %s, pid %d, listens on %s", SANDSTORM_VERSION, (int)getpid(), addresses);
    log_info("%" PRId64 " workers, max_runs %" PRId64 ", runtime %s, instance %s", s->workers, s->max_runs,
             preflight_wants_local_runtime(s, start_environment(master), master->store) ? "local" : "e2b",
             master->instance);
    log_info("timeout %" PRId64 " ms (longest run), worker_timeout %" PRId64
             " ms (longest silence of a worker), graceful_timeout %" PRId64 " ms (longest drain)",
             s->timeout_ms, s->worker_timeout_ms, s->graceful_timeout_ms);
    if (*s->api_key == '\0')
        log_warn("no SANDSTORM_API_KEY: every client is served");
}

/* --- stop --------------------------------------------------------------------------------------- */

/* The listening sockets close when their last holder does: the workers close theirs on these orders. */
void master_stop(struct master *master, enum child_event how)
{
    if (master->phase != MASTER_STOPPING) {
        notify_stopping("waiting for the runs to end");
        if (master->next != NULL)
            listeners_close(&master->next->plan.listeners, &master->listeners);
        listeners_close(&master->listeners, NULL);
    }
    master->phase = MASTER_STOPPING;
    upgrade_end(&master->upgrade);
    workers_event_all(master->workers, how);
}

/* The server cannot start; the reason was logged. */
static void give_up(struct master *master)
{
    log_error("the server does not start");
    master->exit_code = EXIT_FAILURE;
    master_stop(master, EVENT_END);
}

static bool is_over(const struct master *master)
{
    return master->phase == MASTER_STOPPING && workers_count(master->workers) == 0 &&
           (master->runtime == NULL || runtime_state(master->runtime) == RUNTIME_GONE);
}

/* --- generations -------------------------------------------------------------------------------- */

struct generation *master_make_generation(struct master *master, struct settings_load *load,
                                          struct project_store *store, const struct listeners *listeners)
{
    const struct worker_plan plan = {
        .generation = ++master->generations,
        .listeners = *listeners,
        .local_socket = master->runtime != NULL ? runtime_socket_path(master->runtime) : NULL,
        .privileges = &master->privileges,
        .instance = master->instance,
        .state_dir = master->state_dir.path,
        .project_store = store,
        .owner_fd = master->runtime != NULL ? runtime_owner_fd(master->runtime) : -1,
    };
    struct generation *generation;

    privileges_give_logs(&master->privileges, settings_load_values(load));
    generation = generation_new(load, &plan);
    if (generation == NULL) {
        log_error("cannot start workers: %s", strerror(errno));
        settings_load_free(load);
        project_store_free(store);
    }
    return generation;
}

static struct generation *generation_of(const struct master *master, const struct worker *worker)
{
    if (master->next != NULL && master->next->plan.generation == worker->generation)
        return master->next;
    if (master->current != NULL && master->current->plan.generation == worker->generation)
        return master->current;
    return NULL; /* it drains for a generation that is no more */
}

static void on_admitted(struct worker *worker, void *owner)
{
    const struct master *master = owner;
    struct generation *generation = generation_of(master, worker);

    log_debug("worker %d (pid %d) is ready after %lld ms", worker->slot, (int)worker->pid,
              (long long)(monotonic_ms() - worker->started_ms));
    if (generation != NULL)
        generation_admitted(generation, master->workers, worker);
}

static void on_buried(struct worker *worker, bool finished_job, void *owner)
{
    const struct master *master = owner;
    struct generation *generation = generation_of(master, worker);

    if (generation != NULL && master->phase != MASTER_STOPPING)
        generation_buried(generation, worker, finished_job, monotonic_ms());
}

/* --- one step of each phase --------------------------------------------------------------------- */

/* Forks the first workers, with or without a local runtime to name to them. */
static void begin_generation(struct master *master)
{
    if (master->runtime == NULL &&
        preflight_wants_local_runtime(start_settings(master), start_environment(master), master->store))
        log_warn("no local runtime and no E2B_API_KEY: only requests that bring their own E2B key can be served");
    master->current = master_make_generation(master, master->load, master->store, &master->listeners);
    master->load = NULL;
    master->store = NULL;
    if (master->current != NULL)
        master->phase = MASTER_STARTING;
    else
        give_up(master);
}

/* Waits for the local runtime; without it the server goes on only if nobody asked for it by name. */
static void advance_runtime(struct master *master)
{
    enum runtime_state state = master->runtime != NULL ? runtime_state(master->runtime) : RUNTIME_GONE;

    if (state == RUNTIME_STARTING)
        return;
    if (state == RUNTIME_FAILED && start_settings(master)->runtime == RUNTIME_LOCAL) {
        give_up(master);
        return;
    }
    if (state == RUNTIME_FAILED) {
        runtime_free(master->runtime);
        master->runtime = NULL;
    }
    begin_generation(master);
}

static void advance_starting(struct master *master, int64_t now_ms)
{
    generation_fill(master->current, master->workers, now_ms);
    if (master->current->state == GENERATION_FAILED) {
        give_up(master);
    } else if (master->current->state == GENERATION_SERVING) {
        master->phase = MASTER_SERVING;
        pid_file_write(&master->pid_file, master->current->plan.settings->pid_file);
        master_tell_ready(master);
    }
}

static void advance_serving(struct master *master, int64_t now_ms)
{
    generation_fill(master->current, master->workers, now_ms);
    if (master->next == NULL)
        generation_recycle(master->current, master->workers, now_ms);
    reload_advance(master, now_ms);
    workers_elect(master->workers, master->current->plan.generation);
    upgrade_advance(master);
}

/* The runtime is stopped last: workers delete their sandboxes through it. */
static void advance_stopping(struct master *master, int64_t now_ms)
{
    if (workers_count(master->workers) == 0 && master->runtime != NULL)
        runtime_stop(master->runtime, now_ms);
}

static void advance(struct master *master, int64_t now_ms)
{
    if (master->phase == MASTER_RUNTIME)
        advance_runtime(master);
    if (master->phase == MASTER_STARTING)
        advance_starting(master, now_ms);
    if (master->phase == MASTER_SERVING)
        advance_serving(master, now_ms);
    if (master->phase == MASTER_STOPPING)
        advance_stopping(master, now_ms);
}

/* --- the loop ----------------------------------------------------------------------------------- */

/* The earlier of two times, where -1 is never. */
static int64_t earlier_ms(int64_t left_ms, int64_t right_ms)
{
    if (left_ms < 0 || right_ms < 0)
        return left_ms < 0 ? right_ms : left_ms;
    return left_ms < right_ms ? left_ms : right_ms;
}

/* How long the loop may sleep. */
static int64_t sleep_ms(const struct master *master, int64_t now_ms)
{
    int64_t due_ms = earlier_ms(now_ms + TICK_MS, workers_deadline_ms(master->workers));

    if (master->runtime != NULL)
        due_ms = earlier_ms(due_ms, runtime_deadline_ms(master->runtime));
    if (master->phase == MASTER_SERVING)
        due_ms = earlier_ms(due_ms, generation_deadline_ms(master->current));
    if (notify_watchdog_interval_ms() > 0)
        due_ms = earlier_ms(due_ms, master->watchdog_ms);
    return due_ms > now_ms ? due_ms - now_ms : 0;
}

/* Sleeps until something happens, then hears it: words of workers before their exits. */
static void wait_for_events(struct master *master)
{
    struct pollfd fds[3 + SCOREBOARD_SLOTS_MAX];
    int64_t wait_ms = sleep_ms(master, monotonic_ms());
    const struct timespec timeout = {.tv_sec = wait_ms / 1000, .tv_nsec = wait_ms % 1000 * 1000000};
    size_t count;

    fds[0] = (struct pollfd){.fd = master->signal_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = master->runtime != NULL ? runtime_ready_fd(master->runtime) : -1, .events = POLLIN};
    fds[2] = (struct pollfd){.fd = master->upgrade.output_fd, .events = POLLIN};
    count = workers_poll(master->workers, fds + 3);
    if (ppoll(fds, 3 + count, &timeout, NULL) < 0 && errno != EINTR)
        log_panic("master: poll: %s", strerror(errno));
    if (fds[1].revents != 0)
        runtime_readable(master->runtime);
    if (fds[2].revents != 0)
        upgrade_readable(&master->upgrade);
    workers_polled(master->workers, fds + 3, count);
    master_read_signals(master);
}

/* What time brings: the throttles, the deadlines, the heartbeats, the watchdog. */
static void tick(struct master *master, int64_t now_ms)
{
    int64_t interval_ms = notify_watchdog_interval_ms();

    if (now_ms - master->loop_ms > AWAY_MS)
        master->awake_ms = now_ms;
    master->loop_ms = now_ms;
    if (master->runtime != NULL)
        runtime_tick(master->runtime, now_ms);
    workers_tick(master->workers, now_ms, master->awake_ms);
    if (master->phase == MASTER_SERVING) {
        const struct announced of = announced(master);

        run_history_tick(&master->history, now_ms);
        announce_status(&master->announcement, &of, now_ms);
    }
    if (interval_ms > 0 && now_ms >= master->watchdog_ms) {
        notify_watchdog();
        master->watchdog_ms = now_ms + interval_ms;
    }
}

static void loop(struct master *master)
{
    advance(master, monotonic_ms());
    while (!is_over(master)) {
        wait_for_events(master);
        tick(master, monotonic_ms());
        advance(master, monotonic_ms());
    }
}

/* --- start and end ------------------------------------------------------------------------------ */

/* The given name, else the one that is kept: a copy of our own, since settings go with their generation. */
static bool name_instance(struct master *master)
{
    const char *given = start_settings(master)->instance;

    master->instance = *given != '\0' ? strdup(given) : state_dir_instance(&master->state_dir);
    return master->instance != NULL;
}

bool master_make_scoreboard(struct master *master)
{
    const struct settings *settings = start_settings(master);
    const struct scoreboard_sizes sizes = {.max_runs = (unsigned)settings->max_runs,
                                           .run_history = (unsigned)settings->run_history};

    master->scoreboard = scoreboard_new(&sizes, &master->scoreboard_fd);
    if (master->scoreboard == NULL) {
        log_error("cannot make the scoreboard: %s", strerror(errno));
        return false;
    }
    snprintf(master->scoreboard->instance, sizeof master->scoreboard->instance, "%s", master->instance);
    return true;
}

bool master_make_workers(struct master *master)
{
    static const struct workers_callbacks callbacks = {.admitted = on_admitted, .buried = on_buried};

    master->workers = workers_new(master->scoreboard, &callbacks, master);
    if (master->workers == NULL)
        log_error("cannot make the table of workers: %s", strerror(errno));
    return master->workers != NULL;
}

/* Everything that may fail from outside, before the first child. */
static bool prepare(struct master *master)
{
    const struct settings *settings = start_settings(master);

    master->store = project_store_new();
    if (!privileges_are_told(settings) || !privileges_resolve(&master->privileges, settings) || master->store == NULL ||
        !master_open_signals(master) || !log_use_file(settings->log_file) || !preflight_check(settings) ||
        !preflight_check_project(master->load, master->store, &master->privileges) ||
        !preflight_raise_descriptors(settings->max_runs) || !listeners_open(&master->listeners, settings, NULL) ||
        !pid_file_is_free(settings->pid_file) || !state_dir_open(&master->state_dir, settings->state_dir) ||
        !name_instance(master))
        return false;
    if (!master_make_scoreboard(master) || !master_make_workers(master))
        return false;
    log_start(master);
    state_dir_give(&master->state_dir, &master->privileges);
    run_history_begin(&master->history, master->state_dir.path, master->scoreboard, &master->privileges);
    if (!preflight_wants_local_runtime(settings, start_environment(master), master->store))
        return true;
    master->runtime = runtime_new(settings, &master->privileges);
    return master->runtime != NULL || settings->runtime == RUNTIME_AUTO;
}

static void release(struct master *master)
{
    upgrade_end(&master->upgrade);
    generation_free(master->next);
    generation_free(master->current);
    settings_load_free(master->load);
    project_store_free(master->store);
    runtime_free(master->runtime);
    workers_free(master->workers);
    run_history_end(&master->history);
    scoreboard_free(master->scoreboard);
    if (master->scoreboard_fd >= 0)
        close(master->scoreboard_fd);
    listeners_close(&master->listeners, NULL);
    free(master->instance);
    pid_file_remove(&master->pid_file);
    state_dir_close(&master->state_dir);
    if (master->signal_fd >= 0)
        close(master->signal_fd);
}

/* A start of its own, or in the place of a master before. */
static bool begin(struct master *master)
{
    int fd = handover_offered();
    struct handover *handover;
    bool good;

    if (fd < 0)
        return prepare(master);
    handover = handover_read(fd);
    close(fd);
    good = handover != NULL && adopt_master(master, handover);
    handover_free(handover);
    return good;
}

int master_run(int argc, char *const argv[], struct settings_load *load)
{
    struct master master = {.phase = MASTER_RUNTIME,
                            .exit_code = EXIT_SUCCESS,
                            .argc = argc,
                            .argv = argv,
                            .load = load,
                            .signal_fd = -1,
                            .scoreboard_fd = -1,
                            .state_dir = STATE_DIR_CLOSED,
                            .pid_file = PID_FILE_NONE,
                            .upgrade = UPGRADE_NONE_YET,
                            .loop_ms = monotonic_ms()};

    log_set_level((enum log_level)start_settings(&master)->log_level);
    if (begin(&master))
        loop(&master);
    else
        master.exit_code = EXIT_FAILURE;
    if (master.exit_code == EXIT_SUCCESS)
        log_info("stopped");
    release(&master);
    return master.exit_code;
}
