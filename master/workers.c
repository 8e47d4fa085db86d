#include "master/workers.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "master/child.h"
#include "master/listen.h"
#include "worker/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct workers {
    struct scoreboard *scoreboard;
    struct workers_callbacks callbacks;
    void *owner;
    size_t count;
    struct worker entries[SCOREBOARD_SLOTS_MAX];
};

struct workers *workers_new(struct scoreboard *scoreboard, const struct workers_callbacks *callbacks, void *owner)
{
    struct workers *workers = calloc(1, sizeof *workers);

    if (workers == NULL)
        return NULL;
    workers->scoreboard = scoreboard;
    workers->callbacks = *callbacks;
    workers->owner = owner;
    return workers;
}

void workers_free(struct workers *workers)
{
    size_t cursor = 0;

    if (workers == NULL)
        return;
    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        if (w->fd >= 0)
            close(w->fd);
    }
    free(workers);
}

/* --- birth -------------------------------------------------------------------------------------- */

/* The child: keeps what is a worker's own, and becomes one. */
static _Noreturn void become_worker(struct scoreboard *scoreboard, const struct worker_plan *plan, int slot, int fd,
                                    pid_t master)
{
    const struct worker_context context = {.settings = plan->settings,
                                           .environment = plan->environment,
                                           .scoreboard = scoreboard,
                                           .slot = slot,
                                           .master_fd = fd,
                                           .listen_fds = plan->listeners.fds,
                                           .listen_count = plan->listeners.count,
                                           .listen_proxied = listeners_proxied(&plan->listeners),
                                           .tls_files = plan->tls_files,
                                           .local_socket = plan->local_socket,
                                           .instance = plan->instance,
                                           .state_dir = plan->state_dir,
                                           .project_store = plan->project_store};
    int keep[LISTEN_MAX + 2];
    size_t kept = 0;
    char name[32];

    snprintf(name, sizeof name, "worker %d", slot);
    log_open(name);
    log_set_level((enum log_level)plan->settings->log_level);
    metrics_open(scoreboard, slot);
    memcpy(keep, plan->listeners.fds, plan->listeners.count * sizeof *keep);
    kept = plan->listeners.count;
    keep[kept++] = fd;
    if (plan->owner_fd >= 0)
        keep[kept++] = plan->owner_fd;
    child_close_others(keep, kept);
    privileges_enter(plan->privileges);
    child_follow(master, SIGTERM); /* so that one that is stuck hears of its end too */
    exit(worker_main(&context));   /* the end of this process's main; not _exit: leak checkers report at exit */
}

/* Sets the state's deadline. */
static void start_patience(struct worker *worker, int64_t now_ms)
{
    int64_t patience_ms = supervise_patience_ms(worker->state, worker->graceful_timeout_ms);

    worker->deadline_ms = patience_ms < 0 ? -1 : now_ms + patience_ms;
}

/* worker_max_requests, and some more by chance. */
static int64_t draw_run_limit(const struct settings *settings)
{
    uint64_t chance = 0;

    if (settings->worker_max_requests == 0)
        return 0;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) < 0)
        chance = (uint64_t)monotonic_ms();
    return settings->worker_max_requests + (int64_t)(chance % (uint64_t)(settings->worker_max_requests_jitter + 1));
}

/* Writes a forked worker into the table. */
static struct worker *enter(struct workers *workers, const struct worker_plan *plan, int slot, pid_t pid, int fd)
{
    struct worker *worker = &workers->entries[slot];
    int64_t now_ms = monotonic_ms();

    *worker = (struct worker){.pid = pid,
                              .slot = slot,
                              .fd = fd,
                              .generation = plan->generation,
                              .state = CHILD_STARTING,
                              .started_ms = now_ms,
                              .graceful_timeout_ms = plan->settings->graceful_timeout_ms,
                              .worker_timeout_ms = plan->settings->worker_timeout_ms,
                              .run_limit = draw_run_limit(plan->settings)};
    start_patience(worker, now_ms);
    workers->count++;
    return worker;
}

struct worker *workers_spawn(struct workers *workers, const struct worker_plan *plan, unsigned seat)
{
    static const int ignored[] = {SIGHUP, SIGTTIN, SIGTTOU, SIGINT, SIGPIPE, SIGXFSZ, 0};
    int slot = scoreboard_take_slot(workers->scoreboard, plan->generation);
    struct worker *worker;
    int pair[2] = {-1, -1};
    pid_t master = getpid(), pid;

    if (slot < 0) {
        log_error("cannot start a worker: all %d slots are taken", SCOREBOARD_SLOTS_MAX);
        return NULL;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0 ||
        (pid = child_fork(ignored)) < 0) {
        log_error("cannot start a worker: %s", strerror(errno));
        if (pair[0] >= 0) {
            close(pair[0]);
            close(pair[1]);
        }
        scoreboard_release_slot(workers->scoreboard, slot);
        return NULL;
    }
    if (pid == 0)
        become_worker(workers->scoreboard, plan, slot, pair[1], master);
    close(pair[1]);
    worker = enter(workers, plan, slot, pid, pair[0]);
    worker->seat = seat;
    log_debug("worker %d (pid %d) of generation %u started", slot, (int)pid, plan->generation);
    return worker;
}

/* Looks for sandboxes that no run knows are held back, or begin anew. */
static void hold_reconciliation(struct workers *workers)
{
    size_t cursor = 0;
    bool has_unseen = false;

    for (const struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        has_unseen = has_unseen || w->is_unseen;
    atomic_store(&workers->scoreboard->reconcile_due_ms, has_unseen ? INT64_MAX : 0);
}

void workers_adopt(struct workers *workers, const struct worker *worker)
{
    workers->entries[worker->slot] = *worker;
    workers->count++;
    if (!worker->is_unseen)
        return;
    scoreboard_hold_slot(workers->scoreboard, worker->slot, worker->generation, worker->pid);
    hold_reconciliation(workers);
}

/* --- events ------------------------------------------------------------------------------------- */

/* Sends one byte. A worker that cannot take it is dying, and its exit will be seen. */
static void say(const struct worker *worker, enum worker_message message)
{
    const char byte = (char)message;

    if (worker->fd >= 0 && send(worker->fd, &byte, 1, MSG_NOSIGNAL) < 0)
        log_debug("cannot tell worker %d (pid %d) '%c': %s", worker->slot, (int)worker->pid, byte, strerror(errno));
}

static void signal_worker(const struct worker *worker, int number)
{
    if (kill(worker->pid, number) < 0)
        log_error("cannot send SIG%s to worker %d (pid %d): %s", sigabbrev_np(number), worker->slot, (int)worker->pid,
                  strerror(errno));
}

/* Why a worker is sent ABRT or KILL. */
static void log_impatience(const struct worker *worker, enum child_event event, const char *remedy)
{
    if (event == EVENT_SILENT)
        log_error("worker %d (pid %d) is silent for longer than worker_timeout (%lld ms): %s", worker->slot,
                  (int)worker->pid, (long long)worker->worker_timeout_ms, remedy);
    else
        log_error("worker %d (pid %d) is %s for too long: %s", worker->slot, (int)worker->pid,
                  supervise_state_name(worker->state), remedy);
}

/* Frees the entry of a reaped worker, and what it held of the scoreboard. */
static void bury(struct workers *workers, struct worker *worker)
{
    bool finished_job = atomic_load(&workers->scoreboard->slots[worker->slot].ended_runs) > 0;
    unsigned held = scoreboard_release_slot(workers->scoreboard, worker->slot);

    if (held > 0)
        log_error("worker %d (pid %d) took %u live runs with it", worker->slot, (int)worker->pid, held);
    if (worker->fd >= 0)
        close(worker->fd);
    worker->fd = -1;
    workers->count--;
    workers->callbacks.buried(worker, finished_job, workers->owner);
    worker->pid = 0;
    if (worker->is_unseen)
        hold_reconciliation(workers);
}

static void enter_state(struct worker *worker, enum child_state next)
{
    if (worker->state == next)
        return;
    worker->state = next;
    start_patience(worker, monotonic_ms());
}

void workers_event(struct workers *workers, struct worker *worker, enum child_event event)
{
    struct supervise_step step = supervise_decide(worker->state, event);

    switch (step.action) {
    case ACTION_NONE:
        break;
    case ACTION_ADMIT:
        break; /* below, once the state is the new one */
    case ACTION_SAY_DRAIN:
        say(worker, MASTER_SAYS_DRAIN);
        break;
    case ACTION_SAY_STOP:
        say(worker, MASTER_SAYS_STOP);
        break;
    case ACTION_SAY_END:
        say(worker, MASTER_SAYS_END);
        break;
    case ACTION_ABORT:
        log_impatience(worker, event, "sending SIGABRT");
        signal_worker(worker, SIGABRT);
        break;
    case ACTION_KILL:
        log_impatience(worker, event, "sending SIGKILL");
        signal_worker(worker, SIGKILL);
        break;
    case ACTION_BURY:
        bury(workers, worker);
        return;
    default:
        log_panic("workers: action %d", (int)step.action);
    }
    enter_state(worker, step.next);
    if (step.action == ACTION_ADMIT) {
        worker->was_ready = true;
        workers->callbacks.admitted(worker, workers->owner);
    }
}

void workers_event_all(struct workers *workers, enum child_event event)
{
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        workers_event(workers, w, event);
}

void workers_elect(struct workers *workers, unsigned generation)
{
    struct worker *chosen = NULL;
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        if (w->generation != generation || w->state != CHILD_SERVING || w->is_unseen)
            continue;
        if (w->is_elected)
            return;
        if (chosen == NULL)
            chosen = w;
    }
    if (chosen == NULL)
        return;
    chosen->is_elected = true;
    say(chosen, MASTER_SAYS_ELECTED);
}

void workers_reopen_log(struct workers *workers)
{
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        say(w, MASTER_SAYS_REOPEN);
}

/* --- what workers say --------------------------------------------------------------------------- */

size_t workers_poll(struct workers *workers, struct pollfd *fds)
{
    size_t cursor = 0, count = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        if (w->fd >= 0)
            fds[count++] = (struct pollfd){.fd = w->fd, .events = POLLIN};
    }
    return count;
}

/* The master does not know whose run it is, and need not. */
static void tell_all_to_look(struct workers *workers)
{
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        say(w, MASTER_SAYS_LOOK);
}

/* Reads what a worker said. At the end of file its exit is near; the descriptor would only keep poll busy. */
static void read_worker(struct workers *workers, struct worker *worker)
{
    char said[16];
    ssize_t n;

    while (worker->fd >= 0 && (n = recv(worker->fd, said, sizeof said, 0)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            if (said[i] == WORKER_SAYS_READY)
                workers_event(workers, worker, EVENT_READY);
            else if (said[i] == WORKER_SAYS_LOOK)
                tell_all_to_look(workers);
            else
                log_warn("worker %d (pid %d) said an unknown byte 0x%02x", worker->slot, (int)worker->pid,
                         (unsigned)(unsigned char)said[i]);
        }
    }
    if (worker->fd >= 0)
        close(worker->fd);
    worker->fd = -1;
}

void workers_polled(struct workers *workers, const struct pollfd *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        size_t cursor = 0;

        if (fds[i].revents == 0)
            continue;
        for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
            if (w->fd == fds[i].fd) {
                read_worker(workers, w);
                break;
            }
        }
    }
}

/* Says how a worker ended: an ordered end is news only for a debugger. */
static void log_exit(const struct worker *worker, int status)
{
    char how[CHILD_EXIT_TEXT_BYTES];
    bool ordered = worker->state == CHILD_DRAINING || worker->state == CHILD_STOPPING || worker->state == CHILD_ENDING;

    child_describe_exit(status, how);
    if (ordered && WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_OK)
        log_info("worker %d (pid %d) of generation %u ended as told", worker->slot, (int)worker->pid,
                 worker->generation);
    else
        log_error("worker %d (pid %d) of generation %u died while %s: %s", worker->slot, (int)worker->pid,
                  worker->generation, supervise_state_name(worker->state), how);
}

bool workers_reaped(struct workers *workers, pid_t pid, int status)
{
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        if (w->pid != pid)
            continue;
        read_worker(workers, w); /* its last words: it may have been ready before it died */
        log_exit(w, status);
        workers_event(workers, w, EVENT_EXITED);
        return true;
    }
    return false;
}

/* --- time --------------------------------------------------------------------------------------- */

void workers_tick(struct workers *workers, int64_t now_ms, int64_t awake_ms)
{
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        int64_t heard_ms = atomic_load(&workers->scoreboard->slots[w->slot].heartbeat_ms);

        if (heard_ms < awake_ms)
            heard_ms = awake_ms;
        if (w->deadline_ms >= 0 && now_ms >= w->deadline_ms)
            workers_event(workers, w, EVENT_LATE);
        else if (!w->is_unseen && now_ms - heard_ms > w->worker_timeout_ms)
            workers_event(workers, w, EVENT_SILENT);
    }
}

int64_t workers_deadline_ms(struct workers *workers)
{
    int64_t earliest_ms = -1;
    size_t cursor = 0;

    for (struct worker *w; (w = workers_next(workers, &cursor)) != NULL;) {
        if (w->deadline_ms >= 0 && (earliest_ms < 0 || w->deadline_ms < earliest_ms))
            earliest_ms = w->deadline_ms;
    }
    return earliest_ms;
}

/* --- the table ---------------------------------------------------------------------------------- */

struct worker *workers_next(struct workers *workers, size_t *cursor)
{
    while (*cursor < SCOREBOARD_SLOTS_MAX) {
        struct worker *worker = &workers->entries[(*cursor)++];

        if (worker->pid != 0)
            return worker;
    }
    return NULL;
}

size_t workers_count(const struct workers *workers)
{
    return workers->count;
}

size_t workers_count_in(struct workers *workers, enum child_state state)
{
    size_t cursor = 0, count = 0;

    for (const struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        count += w->state == state;
    return count;
}

size_t workers_count_draining(struct workers *workers, unsigned generation)
{
    size_t cursor = 0, count = 0;

    for (const struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        count += w->state == CHILD_DRAINING && w->generation == generation;
    return count;
}

bool workers_is_spent(const struct workers *workers, const struct worker *worker)
{
    struct worker_slot *slot = &workers->scoreboard->slots[worker->slot];
    uint64_t served = atomic_load(&slot->ended_runs) + atomic_load(&slot->live_runs);

    return worker->run_limit > 0 && worker->state == CHILD_SERVING && served >= (uint64_t)worker->run_limit;
}

/* Is there a worker of its generation before it in the table? */
static bool is_counted(struct workers *workers, const struct worker *worker)
{
    size_t cursor = 0;

    for (const struct worker *w; (w = workers_next(workers, &cursor)) != worker;) {
        if (w->generation == worker->generation)
            return true;
    }
    return false;
}

unsigned workers_other_generations(struct workers *workers, unsigned generation)
{
    size_t cursor = 0;
    unsigned count = 0;

    for (const struct worker *w; (w = workers_next(workers, &cursor)) != NULL;)
        count += w->generation != generation && !is_counted(workers, w);
    return count;
}
