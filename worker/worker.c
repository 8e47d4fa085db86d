#include "worker/worker.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "worker/embedded.h"
#include "worker/history.h"
#include "worker/history_store.h"
#include "worker/memory_watch.h"
#include "worker/page.h"
#include "worker/project_dir.h"
#include "worker/recovery.h"
#include "worker/registration.h"
#include "worker/routes.h"
#include "worker/run.h"
#include "worker/scheduler.h"
#include "worker/service_probe.h"
#include "worker/telemetry.h"
#include "worker/timer.h"
#include "worker/tls.h"
#include "worker/trigger_prompt.h"
#include "worker/upstream.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

/* How often a worker gives a sign of life, and how often at least within worker_timeout. */
#define HEARTBEAT_MS           1000
#define HEARTBEATS_PER_TIMEOUT 4
/* A leaving worker looks this often whether the last client has taken everything. */
#define LEAVING_CHECK_MS 50

enum worker_phase {
    PHASE_SERVING,  /* accepting */
    PHASE_DRAINING, /* accepting nothing; the runs go on, within graceful_timeout */
    PHASE_ENDING,   /* the runs were ended; deletions and flushes are awaited, within WORKER_DELETE_GRACE_MS */
};

struct worker {
    const struct worker_context *context;
    enum worker_phase phase;
    struct event_base *base;
    struct http_client *http;
    struct server *server;
    struct run_host host;
    struct route_context routing;
    struct route *routes;
    struct scheduler *scheduler;
    struct registration *registration;
    struct recovery *recovery;
    uint64_t trimmed_at_runs; /* ended when memory was returned last */
    struct event *heartbeat;
    struct event *from_master;
    struct event *phase_timer; /* end of the drain, then of the deletions */
    struct event *signals[2];  /* TERM, QUIT */
    enum worker_exit exit_code;
};

static struct worker_slot *own_slot(const struct worker *worker)
{
    return &worker->context->scoreboard->slots[worker->context->slot];
}

/* --- leaving ------------------------------------------------------------------------------------------ */

/*
 * Connections without a request that a leaving worker waits for: closing them would race with the request. Their
 * time-outs bound the wait.
 */
static enum server_waiting waits_for(const struct worker *worker)
{
    if (worker->phase == PHASE_ENDING)
        return SERVER_WAITING_NONE;
    return worker->routing.stopping ? SERVER_WAITING_FIRST : SERVER_WAITING_ALL;
}

/* Is everything done that a leaving worker waits for? */
static bool is_idle(const struct worker *worker)
{
    return server_has_stopped_accepting(worker->server) && worker->host.run_count == 0 &&
           worker->host.create_count == 0 && stray_search_in_flight(worker->host.strays) == 0 &&
           kill_queue_length(worker->host.kills) == 0 && !registration_is_busy(worker->registration) &&
           server_open_requests(worker->server, waits_for(worker)) == 0;
}

static void end_now(struct worker *worker);

/* When the instance stops, runs have the grace; what they leave to be deleted has less (http-api.md 16). */
static bool only_deletions_are_left(const struct worker *worker)
{
    return worker->phase == PHASE_DRAINING && worker->routing.stopping &&
           server_has_stopped_accepting(worker->server) && worker->host.run_count == 0 &&
           server_open_requests(worker->server, waits_for(worker)) == 0;
}

static void leave_if_idle(void *context)
{
    struct worker *worker = context;

    if (only_deletions_are_left(worker)) {
        end_now(worker);
        return;
    }
    if (worker->phase != PHASE_SERVING && is_idle(worker) && telemetry_flush(worker->host.telemetry))
        event_base_loopexit(worker->base, NULL);
}

static void drain(struct worker *worker)
{
    if (worker->phase != PHASE_SERVING)
        return;
    worker->phase = PHASE_DRAINING;
    atomic_store(&own_slot(worker)->state, WORKER_DRAINING);
    scheduler_stop(worker->scheduler);
    server_stop_accepting(worker->server, worker->routing.stopping);
    log_info("draining %zu runs, for up to %lld s", worker->host.run_count,
             (long long)(worker->context->settings->graceful_timeout_ms / 1000));
    timer_start(worker->phase_timer, worker->context->settings->graceful_timeout_ms);
    timer_start(worker->heartbeat, LEAVING_CHECK_MS);
    leave_if_idle(worker);
}

static void end_now(struct worker *worker)
{
    if (worker->phase == PHASE_ENDING)
        return;
    drain(worker);
    worker->phase = PHASE_ENDING;
    worker->routing.stopping = true;
    run_end_all(&worker->host);
    registration_leave(worker->registration);
    timer_start(worker->phase_timer, WORKER_DELETE_GRACE_MS);
    leave_if_idle(worker);
}

/* The grace is over: first for the runs, then for the deletions. */
static void on_phase_timer(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;

    (void)fd;
    (void)what;
    if (worker->phase == PHASE_DRAINING) {
        log_warn("graceful_timeout is over: ending %zu runs", worker->host.run_count);
        end_now(worker);
        return;
    }
    log_warn("leaving with %zu deletions and %zu streams unfinished",
             kill_queue_length(worker->host.kills) + worker->host.create_count,
             server_open_requests(worker->server, SERVER_WAITING_NONE));
    event_base_loopexit(worker->base, NULL);
}

/* --- schedules ---------------------------------------------------------------------------------------- */

static enum schedule_outcome fire(void *context, const struct trigger *trigger, uint64_t *run_id)
{
    const struct worker *worker = context;
    const struct trigger_sources nothing = {.headers = NULL};
    json_t *prompt = trigger_prompt_render(trigger->prompt, &nothing);

    if (prompt == NULL)
        return SCHEDULE_FAILED;
    switch (route_fire(&worker->routing, trigger, prompt, NULL, run_id)) {
    case TRIGGER_FIRED:
        return SCHEDULE_FIRED;
    case TRIGGER_FULL:
        return SCHEDULE_FULL;
    case TRIGGER_NO_MEMORY:
    default:
        return SCHEDULE_FAILED;
    }
}

/* From now on this worker does what one worker of the instance does. */
static void be_elected(struct worker *worker)
{
    if (worker->phase != PHASE_SERVING)
        return;
    scheduler_start(worker->scheduler);
    registration_start(worker->registration);
    telemetry_elect(worker->host.telemetry);
}

/* --- master ------------------------------------------------------------------------------------------- */

static void obey(struct worker *worker, char message)
{
    switch (message) {
    case MASTER_SAYS_DRAIN:
        registration_resign(worker->registration);
        telemetry_resign(worker->host.telemetry);
        drain(worker);
        break;
    case MASTER_SAYS_STOP:
        worker->routing.stopping = true;
        registration_stop(worker->registration);
        drain(worker);
        break;
    case MASTER_SAYS_END:
        end_now(worker);
        break;
    case MASTER_SAYS_LOOK:
        run_end_wanted(&worker->host);
        break;
    case MASTER_SAYS_ELECTED:
        be_elected(worker);
        break;
    case MASTER_SAYS_REOPEN:
        log_reopen();
        server_reopen_log(worker->server);
        break;
    default:
        log_warn("unknown message 0x%02x from the master", (unsigned char)message);
    }
}

/* Another's run is reached through the master; what gets lost on the way is seen with the next heartbeat. */
static void tell_owner(void *context, uint64_t serial)
{
    struct worker *worker = context;
    const char message = WORKER_SAYS_LOOK;

    if (serial == worker->host.serial)
        run_end_wanted(&worker->host);
    else if (write(worker->context->master_fd, &message, 1) < 0)
        log_debug("cannot tell the master to look: %s", strerror(errno));
}

/* Who stood still hears late: another one may do already what it was elected for, or have undone it. */
static bool is_told_to_leave(const char *messages, ssize_t count)
{
    static const char leaving[] = {MASTER_SAYS_DRAIN, MASTER_SAYS_STOP, MASTER_SAYS_END};

    for (ssize_t i = 0; i < count; i++) {
        if (memchr(leaving, messages[i], sizeof leaving) != NULL)
            return true;
    }
    return false;
}

static void on_master(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;
    char messages[16];
    ssize_t got = read(fd, messages, sizeof messages);

    (void)what;
    for (ssize_t i = 0; i < got; i++) {
        if (messages[i] != MASTER_SAYS_ELECTED || !is_told_to_leave(messages + i, got - i))
            obey(worker, messages[i]);
    }
    if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
        log_error("the master is gone: ending %zu runs", worker->host.run_count);
        event_del(worker->from_master);
        end_now(worker);
    }
}

static void on_signal(evutil_socket_t number, short what, void *context)
{
    (void)number;
    (void)what;
    end_now(context);
}

/*
 * What a burst of runs took goes back to the system with its last run, what a burst of connections took with most of
 * them: malloc keeps what is not at the heap's end.
 */
static void return_memory(struct worker *worker)
{
    uint64_t ended_runs = atomic_load(&own_slot(worker)->ended_runs);
    bool has_emptied = server_has_emptied(worker->server);

    if (!has_emptied && (worker->host.run_count > 0 || ended_runs == worker->trimmed_at_runs))
        return;
    malloc_trim(0);
    worker->trimmed_at_runs = ended_runs;
}

/* Also the moment to see that the last stream was flushed: nothing else tells. */
static void on_heartbeat(evutil_socket_t fd, short what, void *context)
{
    struct worker *worker = context;

    (void)fd;
    (void)what;
    atomic_store(&own_slot(worker)->heartbeat_ms, monotonic_ms());
    atomic_store(&own_slot(worker)->failed_kills, (unsigned)kill_queue_failed(worker->host.kills));
    return_memory(worker); /* what the sweep frees is free in the next turn of the loop only */
    server_sweep(worker->server);
    run_end_wanted(&worker->host);
    log_limit_tick(monotonic_ms());
    if (worker->phase == PHASE_SERVING)
        recovery_tick(worker->recovery);
    registration_tick(worker->registration);
    leave_if_idle(worker);
}

/* --- life --------------------------------------------------------------------------------------------- */

/* libevent found itself broken: a core is worth more than its exit(1). */
static void on_libevent_fatal(int error)
{
    log_panic("libevent: fatal error %d", error);
}

static void on_libevent_log(int severity, const char *message)
{
    if (severity >= EVENT_LOG_WARN)
        log_warn_limited("libevent: %s", message);
}

static int64_t heartbeat_ms(const struct settings *settings)
{
    int64_t ms = settings->worker_timeout_ms / HEARTBEATS_PER_TIMEOUT;

    return ms < HEARTBEAT_MS ? ms : HEARTBEAT_MS;
}

static bool watch(struct worker *worker)
{
    static const int numbers[] = {SIGTERM, SIGQUIT};

    worker->heartbeat = event_new(worker->base, -1, EV_PERSIST, on_heartbeat, worker);
    worker->from_master = event_new(worker->base, worker->context->master_fd, EV_READ | EV_PERSIST, on_master, worker);
    worker->phase_timer = evtimer_new(worker->base, on_phase_timer, worker);
    if (worker->heartbeat == NULL || worker->from_master == NULL || worker->phase_timer == NULL)
        return false;
    for (size_t i = 0; i < 2; i++) {
        worker->signals[i] = evsignal_new(worker->base, numbers[i], on_signal, worker);
        if (worker->signals[i] == NULL || event_add(worker->signals[i], NULL) < 0)
            return false;
    }
    timer_start(worker->heartbeat, heartbeat_ms(worker->context->settings));
    return event_add(worker->from_master, NULL) == 0;
}

/*
 * A loop whose timers count from where they are set, not from the beginning of that turn of the loop: a long turn would
 * cut short what a Retry-After or a timeout gives. Costs one reading of the coarse clock a timer, some 10 ns.
 */
static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    struct event_base *base = NULL;

    if (config != NULL && event_config_set_flag(config, EVENT_BASE_FLAG_NO_CACHE_TIME) == 0)
        base = event_base_new_with_config(config);
    if (config != NULL)
        event_config_free(config);
    return base;
}

static bool set_up(struct worker *worker)
{
    const struct worker_context *context = worker->context;
    struct run_host *host = &worker->host;

    memory_watch_start();
    event_set_fatal_callback(on_libevent_fatal);
    event_set_log_callback(on_libevent_log);
    srand48((long)getpid() ^ (long)monotonic_ms());
    worker->base = new_base();
    if (worker->base == NULL || event_base_priority_init(worker->base, SERVER_PRIORITIES) < 0 ||
        curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return false;
    worker->http = http_client_new(
        worker->base, &(struct http_client_options){.ca_file = context->settings->ca_file,
                                                    .proxy = context->settings->proxy,
                                                    .connect_timeout_ms = context->settings->connect_timeout_ms});
    TAILQ_INIT(&host->runs);
    host->base = worker->base;
    host->http = worker->http;
    host->kills = worker->http != NULL ? kill_queue_new(worker->http, worker->base, context->scoreboard) : NULL;
    host->settings = context->settings;
    host->scoreboard = context->scoreboard;
    host->slot = context->slot;
    host->serial = atomic_load(&own_slot(worker)->serial);
    host->instance = context->instance;
    host->history = history_new(worker->base, context->scoreboard, context->slot, context->state_dir);
    host->project_dir =
        project_dir_new(worker->base, context->settings->project_dir, context->project_store, context->environment);
    host->telemetry = telemetry_new(
        telemetry_options_read(context->environment, context->instance, NULL),
        &(struct telemetry_context){
            .base = worker->base, .scoreboard = context->scoreboard, .on_flushed = leave_if_idle, .context = worker});
    host->on_progress = leave_if_idle;
    host->tell_owner = tell_owner;
    host->context = worker;
    worker->routing = (struct route_context){
        .host = host, .local_socket = context->local_socket, .environment = context->environment};
    worker->routing.docs = page_new(embedded_docs_html, embedded_docs_html_length);
    worker->routing.dashboard = page_new(embedded_dashboard_html, embedded_dashboard_html_length);
    worker->routing.probe =
        worker->http != NULL ? service_probe_new(worker->base, worker->http, context->scoreboard) : NULL;
    worker->routes = host->project_dir != NULL ? routes_make(project_dir_triggers(host->project_dir)) : NULL;
    if (worker->routes != NULL)
        worker->server =
            server_new(worker->base, context->settings, worker->routes, context->tls_files, &worker->routing);
    if (host->kills == NULL || host->history == NULL || worker->server == NULL || worker->routing.docs == NULL ||
        worker->routing.dashboard == NULL || worker->routing.probe == NULL || host->project_dir == NULL ||
        !agent_runner_load(&host->runner, context->settings->agent_runner))
        return false;
    worker->scheduler = scheduler_new(worker->base, context->scoreboard, project_dir_triggers(host->project_dir),
                                      &(struct scheduler_handlers){.fire = fire, .context = worker});
    host->strays = stray_search_new(worker->http, worker->base, host->kills, context->instance);
    worker->recovery = recovery_new(host, context->local_socket, context->environment);
    worker->registration =
        registration_new(&(struct registration_options){.host = host,
                                                        .environment = context->environment,
                                                        .state_dir = context->state_dir,
                                                        .url = project_dir_webhook_url(host->project_dir),
                                                        .on_idle = leave_if_idle,
                                                        .context = worker});
    if (host->strays == NULL || worker->recovery == NULL || worker->scheduler == NULL || worker->registration == NULL)
        return false;
    kill_queue_on_empty(host->kills, leave_if_idle, worker);
    return watch(worker) && server_listen(worker->server, context->scoreboard, context->slot, context->listen_fds,
                                          context->listen_count, context->listen_proxied);
}

static void tear_down(struct worker *worker)
{
    registration_free(worker->registration);
    scheduler_free(worker->scheduler);
    server_free(worker->server);
    free(worker->routes);
    page_free(worker->routing.docs);
    page_free(worker->routing.dashboard);
    service_probe_free(worker->routing.probe);
    recovery_free(worker->recovery);
    stray_search_free(worker->host.strays);
    kill_queue_free(worker->host.kills);
    http_client_free(worker->http);
    project_dir_free(worker->host.project_dir);
    history_free(worker->host.history);
    telemetry_free(worker->host.telemetry);
    agent_runner_release(&worker->host.runner);
    for (size_t i = 0; i < 2; i++) {
        if (worker->signals[i] != NULL)
            event_free(worker->signals[i]);
    }
    if (worker->heartbeat != NULL)
        event_free(worker->heartbeat);
    if (worker->from_master != NULL)
        event_free(worker->from_master);
    if (worker->phase_timer != NULL)
        event_free(worker->phase_timer);
    if (worker->base != NULL)
        event_base_free(worker->base);
    curl_global_cleanup();
}

/* Not by curl_version(): where libcurl has LDAP, it looks this machine's own name up, and waits for the answer. */
static void log_versions(void)
{
    const curl_version_info_data *curl = curl_version_info(CURLVERSION_NOW);

    log_info("serving, with libevent %s, libcurl %s, %s", event_get_version(), curl->version, curl->ssl_version);
}

static bool say_ready(struct worker *worker)
{
    const char message = WORKER_SAYS_READY;
    struct worker_slot *slot = own_slot(worker);

    atomic_store(&slot->heartbeat_ms, monotonic_ms());
    atomic_store(&slot->state, WORKER_SERVING);
    log_versions();
    return write(worker->context->master_fd, &message, 1) == 1;
}

bool worker_check_project(const char *project_dir, const struct environment *environment, struct project_store *store)
{
    memory_watch_start();
    return project_dir_check(project_dir, environment, store);
}

bool worker_check_tls(const struct tls_files *files)
{
    return files == NULL || tls_check(files);
}

bool worker_check_upstream(const struct settings *settings)
{
    return upstream_check(settings->ca_file, settings->proxy);
}

void worker_check_telemetry(const struct environment *environment)
{
    telemetry_check(environment);
}

bool worker_restore_history(const char *state_dir, struct scoreboard *scoreboard)
{
    return history_restore(state_dir, scoreboard);
}

bool worker_compact_history(const char *state_dir, struct scoreboard *scoreboard)
{
    return history_compact(state_dir, scoreboard);
}

int worker_main(const struct worker_context *context)
{
    struct worker worker = {.context = context, .exit_code = WORKER_EXIT_OK};

    atomic_store(&own_slot(&worker)->pid, (int)getpid());
    if (!log_use_file(context->settings->log_file) || !set_up(&worker) || !say_ready(&worker)) {
        log_error("cannot start: see above; out of memory if nothing is there");
        worker.exit_code = WORKER_EXIT_BOOT;
    } else if (event_base_dispatch(worker.base) < 0) {
        log_error("the event loop failed");
        worker.exit_code = WORKER_EXIT_FAILED;
    }
    tear_down(&worker);
    return worker.exit_code;
}
