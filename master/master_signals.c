#include "master/master_signals.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_term(struct master *master, int number)
{
    enum child_event how = master->phase == MASTER_STOPPING ? EVENT_END : EVENT_STOP;

    log_info("SIG%s: %s", sigabbrev_np(number), how == EVENT_STOP ? "stopping, runs may end" : "stopping at once");
    master_stop(master, how);
}

static void on_interrupt(struct master *master, int number)
{
    log_info("SIG%s: stopping at once", sigabbrev_np(number));
    master_stop(master, EVENT_END);
}

static void on_hup(struct master *master, int number)
{
    (void)number;
    if (master->phase == MASTER_STOPPING)
        log_info("SIGHUP ignored: the server stops");
    else if (master->phase != MASTER_SERVING || master->reload_wanted || master->next != NULL)
        log_info("SIGHUP: a reload follows what is under way");
    if (master->phase != MASTER_STOPPING)
        master->reload_wanted = true;
}

/* True when the number of workers may change now. */
static bool may_resize(const struct master *master, int number)
{
    if (master->phase == MASTER_SERVING && master->next == NULL)
        return true;
    log_info("SIG%s ignored: the server starts, reloads or stops", sigabbrev_np(number));
    return false;
}

static void log_resized(const struct master *master, bool changed)
{
    log_info("%u workers wanted%s", generation_wanted(master->current), changed ? "" : ", as before: at the bound");
}

static void on_ttin(struct master *master, int number)
{
    if (may_resize(master, number))
        log_resized(master, generation_grow(master->current));
}

static void on_ttou(struct master *master, int number)
{
    if (may_resize(master, number))
        log_resized(master, generation_shrink(master->current, master->workers));
}

/* nginx's: the workers go, the master stays, with its sockets. New clients wait in their queues. */
static void on_winch(struct master *master, int number)
{
    if (!may_resize(master, number))
        return;
    log_info("SIGWINCH: %u workers drain; HUP starts new ones", generation_wanted(master->current));
    generation_retire(master->current, master->workers);
    announce_notice(&master->announcement, "drained by SIGWINCH: nobody accepts connections until a HUP");
}

static void on_usr1(struct master *master, int number)
{
    (void)number;
    log_info("SIGUSR1: opening the log again");
    log_reopen();
    if (master->current != NULL)
        privileges_give_logs(&master->privileges, master->current->plan.settings);
    workers_reopen_log(master->workers);
}

/* Several exits may hide behind one SIGCHLD. Children that are none of ours were here before us. */
void master_read_children(struct master *master)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (!workers_reaped(master->workers, pid, status) && !run_history_reaped(&master->history, pid, status) &&
            !upgrade_reaped(master, pid, status) &&
            (master->runtime == NULL || !runtime_reaped(master->runtime, pid, status, monotonic_ms())))
            log_debug("reaped pid %d, a stranger", (int)pid);
    }
}

static void on_child(struct master *master, int number)
{
    (void)number;
    master_read_children(master);
}

static void on_usr2(struct master *master, int number)
{
    (void)number;
    if (master->phase == MASTER_STOPPING)
        log_info("SIGUSR2 ignored: the server stops");
    else
        upgrade_want(master);
}

static const struct {
    int number;
    void (*handle)(struct master *master, int number);
} signal_table[] = {
    {SIGCHLD, on_child}, {SIGTERM, on_term}, {SIGINT, on_interrupt}, {SIGQUIT, on_interrupt}, {SIGHUP, on_hup},
    {SIGTTIN, on_ttin},  {SIGTTOU, on_ttou}, {SIGUSR1, on_usr1},     {SIGUSR2, on_usr2},      {SIGWINCH, on_winch},
};

#define SIGNAL_COUNT (sizeof signal_table / sizeof *signal_table)

bool master_open_signals(struct master *master)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        sigaddset(&set, signal_table[i].number);
    signal(SIGCHLD, SIG_DFL); /* an inherited SIG_IGN would reap behind our back */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a log that is full is no reason to die */
    sigprocmask(SIG_SETMASK, &set, NULL);
    master->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (master->signal_fd < 0)
        log_error("cannot read signals: %s", strerror(errno));
    return master->signal_fd >= 0;
}

/* A terminal whose window is resized sends WINCH to its programs: nobody wants anything of us. */
static bool is_of_terminal(const struct signalfd_siginfo *info)
{
    return info->ssi_signo == SIGWINCH && info->ssi_code > SI_USER;
}

void master_read_signals(struct master *master)
{
    struct signalfd_siginfo info;

    while (read(master->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        for (size_t i = 0; i < SIGNAL_COUNT; i++) {
            if (signal_table[i].number == (int)info.ssi_signo && !is_of_terminal(&info))
                signal_table[i].handle(master, (int)info.ssi_signo);
        }
    }
}
