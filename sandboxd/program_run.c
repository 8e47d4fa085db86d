#include "sandboxd/program_run.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What is asked for by a signal, and the end of a child. They stay pending until somebody asks. */
static void signals_to_ask_for(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGHUP);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
}

static void child_and_signals(sigset_t *set)
{
    signals_to_ask_for(set);
    sigaddset(set, SIGCHLD);
}

void program_run_catch_signals(void)
{
    sigset_t set;

    child_and_signals(&set);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

bool program_run_was_interrupted(void)
{
    sigset_t pending;

    return sigpending(&pending) == 0 && (sigismember(&pending, SIGHUP) == 1 || sigismember(&pending, SIGINT) == 1 ||
                                         sigismember(&pending, SIGTERM) == 1);
}

/* Starts the program with no signal blocked; 0, or what errno would be. */
static int start(const char *const *argv, const char *folder, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int error;

    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    posix_spawn_file_actions_init(&actions);
    error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
    if (error == 0)
        error = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    if (error == 0 && folder != NULL)
        error = posix_spawn_file_actions_addchdir_np(&actions, folder);
    if (error == 0)
        error = posix_spawnp(pid, argv[0], &actions, &attributes, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    return error;
}

/* Waits for its end, and asks for it when we are asked: the signal goes on to it, and stays pending with us. */
static int wait_status_of(pid_t pid)
{
    sigset_t set;
    int status = 0;

    child_and_signals(&set);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        int came = sigwaitinfo(&set, NULL);

        if (came > 0 && came != SIGCHLD) {
            kill(pid, SIGTERM);
            sigdelset(&set, came);
            raise(came);
        }
    }
    return status;
}

bool program_run(const char *const *argv, const char *folder)
{
    pid_t pid = -1;
    int error, status;

    if (program_run_was_interrupted()) {
        fprintf(stderr, "sandboxd: interrupted\n");
        return false;
    }
    error = start(argv, folder, &pid);
    if (error != 0) {
        fprintf(stderr, "sandboxd: %s: %s\n", argv[0], error == ENOENT ? "no such program in PATH" : strerror(error));
        return false;
    }
    status = wait_status_of(pid);
    if (program_run_was_interrupted())
        fprintf(stderr, "sandboxd: interrupted\n");
    else if (WIFSIGNALED(status))
        fprintf(stderr, "sandboxd: %s ended by %s\n", argv[0], strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        fprintf(stderr, "sandboxd: %s failed with exit status %d\n", argv[0], WEXITSTATUS(status));
    else
        return true;
    return false;
}
