#include "master/run_history.h"

#include "common/clock.h"
#include "common/log.h"
#include "master/child.h"
#include "worker/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RESTORE_MAX_S 30
#define COMPACT_MAX_S 600
/* The file is compacted when it has more lines than this for each run that is kept. */
#define LINES_PER_RUN_MAX 10
/* After a compaction that failed. */
#define RETRY_MS 60000

static const int ignored_signals[] = {SIGXFSZ, SIGHUP, SIGINT, 0};

/* --- restoring ------------------------------------------------------------------------------------------- */

static void tell_not_restored(const struct run_history *history, const char *reason)
{
    log_warn("the history of runs in %s is not restored: %s", history->state_dir, reason);
}

/* A disk that hangs must not hang the master: the alarm ends the child. */
static void restore(struct run_history *history)
{
    pid_t pid = child_fork(ignored_signals);
    char how[CHILD_EXIT_TEXT_BYTES];
    int status;

    if (pid == 0) {
        privileges_enter(history->privileges);
        alarm(RESTORE_MAX_S);
        _exit(worker_restore_history(history->state_dir, history->scoreboard) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    if (pid < 0) {
        tell_not_restored(history, strerror(errno));
        return;
    }
    if (!child_wait(pid, &status))
        return;
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        tell_not_restored(history, "it took too long");
    else if (status != 0)
        tell_not_restored(history, child_describe_exit(status, how));
}

/* --- compacting ------------------------------------------------------------------------------------------ */

/* Dies with the master, since the next one begins with a compaction of its own. */
static _Noreturn void become_compactor(const struct run_history *history, pid_t master)
{
    int none[1];

    log_open("history");
    privileges_enter(history->privileges);
    child_follow(master, SIGKILL);
    child_close_others(none, 0);
    alarm(COMPACT_MAX_S);
    _exit(worker_compact_history(history->state_dir, history->scoreboard) ? EXIT_SUCCESS : EXIT_FAILURE);
}

static void start_compaction(struct run_history *history)
{
    pid_t master = getpid();
    pid_t pid = child_fork(ignored_signals);

    if (pid == 0)
        become_compactor(history, master);
    if (pid > 0) {
        history->compactor = pid;
        return;
    }
    log_warn("cannot compact the history of runs: %s", strerror(errno));
    history->earliest_ms = monotonic_ms() + RETRY_MS;
}

/* What a compaction cannot shorten is no cause for the next. */
static bool has_grown(const struct run_history *history)
{
    const struct scoreboard *scoreboard = history->scoreboard;
    uint64_t kept = (uint64_t)atomic_load(&scoreboard->ended_runs) + atomic_load(&scoreboard->live_runs);

    if (kept < history->settled_lines)
        kept = history->settled_lines;
    if (kept == 0)
        kept = 1;
    return atomic_load(&scoreboard->history_lines) > LINES_PER_RUN_MAX * kept;
}

void run_history_tick(struct run_history *history, int64_t now_ms)
{
    if (history->state_dir != NULL && history->compactor == 0 && now_ms >= history->earliest_ms && has_grown(history))
        start_compaction(history);
}

bool run_history_reaped(struct run_history *history, pid_t pid, int status)
{
    char how[CHILD_EXIT_TEXT_BYTES];

    if (history->compactor == 0 || pid != history->compactor)
        return false;
    history->compactor = 0;
    if (status == 0) {
        history->settled_lines = atomic_load(&history->scoreboard->history_lines);
        return true;
    }
    if (WIFSIGNALED(status))
        log_warn("the compaction of the history of runs was %s", child_describe_exit(status, how));
    history->earliest_ms = monotonic_ms() + RETRY_MS;
    return true;
}

/* --- life ------------------------------------------------------------------------------------------------ */

void run_history_begin(struct run_history *history, const char *state_dir, struct scoreboard *scoreboard,
                       const struct privileges *privileges)
{
    *history = (struct run_history){.state_dir = state_dir, .scoreboard = scoreboard, .privileges = privileges};
    if (state_dir == NULL)
        return;
    restore(history);
    /* Each run that is kept now has its last line in the file; what else is there is in the way. */
    if (atomic_load(&scoreboard->history_lines) > atomic_load(&scoreboard->ended_runs))
        start_compaction(history);
}

void run_history_adopt(struct run_history *history, const char *state_dir, struct scoreboard *scoreboard,
                       const struct privileges *privileges, uint64_t settled_lines)
{
    *history = (struct run_history){
        .state_dir = state_dir, .scoreboard = scoreboard, .privileges = privileges, .settled_lines = settled_lines};
}

void run_history_end(struct run_history *history)
{
    if (history->compactor == 0)
        return;
    kill(history->compactor, SIGKILL);
    waitpid(history->compactor, NULL, 0);
    history->compactor = 0;
}
