#include "master/child.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Default dispositions, but for the ignored. KILL, STOP and libc's own refuse: nothing to do about them. */
static void reset_dispositions(const int *ignored)
{
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    for (; *ignored != 0; ignored++)
        signal(*ignored, SIG_IGN);
}

pid_t child_fork(const int *ignored)
{
    sigset_t all, before, none;
    pid_t pid;

    sigfillset(&all);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid = fork();
    if (pid == 0) {
        reset_dispositions(ignored);
        sigprocmask(SIG_SETMASK, &none, NULL);
        return 0;
    }
    sigprocmask(SIG_SETMASK, &before, NULL);
    return pid;
}

void child_follow(pid_t parent, int signal_number)
{
    prctl(PR_SET_PDEATHSIG, signal_number);
    if (getppid() != parent)
        _exit(EXIT_FAILURE);
}

bool child_wait(pid_t pid, int *status)
{
    while (waitpid(pid, status, 0) < 0) {
        if (errno != EINTR)
            return false;
    }
    return true;
}

static int compare_fds(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

void child_close_others(int *keep, size_t count)
{
    int first = STDERR_FILENO + 1;

    qsort(keep, count, sizeof *keep, compare_fds);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < first)
            continue;
        if (keep[i] > first)
            close_range((unsigned)first, (unsigned)keep[i] - 1, 0);
        first = keep[i] + 1;
    }
    close_range((unsigned)first, UINT_MAX, 0);
}

const char *child_describe_exit(int status, char out[static CHILD_EXIT_TEXT_BYTES])
{
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));

        if (name != NULL)
            snprintf(out, CHILD_EXIT_TEXT_BYTES, "killed by SIG%s%s", name, WCOREDUMP(status) ? " (core dumped)" : "");
        else
            snprintf(out, CHILD_EXIT_TEXT_BYTES, "killed by signal %d", WTERMSIG(status));
    } else {
        snprintf(out, CHILD_EXIT_TEXT_BYTES, "exit code %d", WEXITSTATUS(status));
    }
    return out;
}
