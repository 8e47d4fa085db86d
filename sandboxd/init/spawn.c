#include "sandboxd/init/init.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The descriptors of a CONTROL_SPAWN, in their order. */
enum { FD_STRINGS, FD_STDIN, FD_STDOUT, FD_STDERR, FD_COUNT };

/* What a child that could not exec tells its parent. */
struct failure {
    int stage;
    int error;
};

/* A command, read from the strings of its order: argv, environment, working directory. */
struct command {
    char *strings; /* mapped */
    size_t bytes;
    char **argv; /* allocated: argv, NULL, envp, NULL */
    char **envp;
    const char *cwd;
    int terminal_fd; /* -1: it gets the descriptors of the order */
};

/* Makes a pseudo terminal of this size: the master, and the terminal in *terminal_fd. -1 with errno. */
static int make_terminal(const struct winsize *window, int *terminal_fd)
{
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    int unlocked = 0;

    if (master < 0)
        return -1;
    if (ioctl(master, TIOCSPTLCK, &unlocked) == 0 && ioctl(master, TIOCSWINSZ, window) == 0)
        *terminal_fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*terminal_fd < 0) {
        int saved = errno;

        close(master);
        errno = saved;
        return -1;
    }
    return master;
}

static void command_free(struct command *command)
{
    if (command->strings != NULL)
        munmap(command->strings, command->bytes);
    free(command->argv);
}

/* Points count entries at consecutive strings and ends them with NULL; false when there are fewer. */
static bool take_strings(char **entries, size_t count, char **next, const char *end)
{
    for (size_t i = 0; i < count; i++) {
        if (*next >= end)
            return false;
        entries[i] = *next;
        *next += strlen(*next) + 1;
    }
    entries[count] = NULL;
    return true;
}

/* Reads the command; false with errno when it is none. */
static bool command_read(struct command *command, const struct control_message *order)
{
    size_t argc = (size_t)order->header.value;
    size_t envc = order->header.flags;
    struct stat strings;
    char *next;

    if (fstat(order->fds[FD_STRINGS], &strings) < 0)
        return false;
    command->bytes = (size_t)strings.st_size;
    next = mmap(NULL, command->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, order->fds[FD_STRINGS], 0);
    if (next == MAP_FAILED)
        return false;
    command->strings = next;
    command->argv = calloc(argc + envc + 2, sizeof *command->argv);
    if (command->argv == NULL)
        return false;
    command->envp = command->argv + argc + 1;
    errno = EINVAL;
    if (argc == 0 || command->strings[command->bytes - 1] != '\0' ||
        !take_strings(command->argv, argc, &next, command->strings + command->bytes) ||
        !take_strings(command->envp, envc, &next, command->strings + command->bytes) ||
        next >= command->strings + command->bytes)
        return false;
    command->cwd = next;
    return true;
}

/* In the child: tells the parent what failed, and ends. */
static _Noreturn void child_fail(int report_fd, int stage)
{
    struct failure failure = {.stage = stage, .error = errno};

    if (write(report_fd, &failure, sizeof failure) < 0) {
        /* the parent is gone, and so are we */
    }
    _exit(127);
}

/* In the child: takes its terminal as all three standard descriptors, in a session of its own. */
static bool take_terminal(int terminal_fd)
{
    return setsid() >= 0 && ioctl(terminal_fd, TIOCSCTTY, 0) == 0 && dup2(terminal_fd, STDIN_FILENO) >= 0 &&
           dup2(terminal_fd, STDOUT_FILENO) >= 0 && dup2(terminal_fd, STDERR_FILENO) >= 0;
}

/* In the child: takes its three standard descriptors. */
static bool take_stdio(const int *fds)
{
    return dup2(fds[FD_STDIN], STDIN_FILENO) >= 0 && dup2(fds[FD_STDOUT], STDOUT_FILENO) >= 0 &&
           dup2(fds[FD_STDERR], STDERR_FILENO) >= 0;
}

/* In the child: becomes the command. */
static _Noreturn void child_run(const struct command *command, const int *fds, int report_fd)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (!(command->terminal_fd >= 0 ? take_terminal(command->terminal_fd) : take_stdio(fds)))
        child_fail(report_fd, CONTROL_SPAWN_RESOURCES);
    if (chdir(command->cwd) < 0)
        child_fail(report_fd, CONTROL_SPAWN_CWD);
    environ = command->envp;
    execvp(command->argv[0], command->argv);
    child_fail(report_fd, CONTROL_SPAWN_EXEC);
}

/* Forks the command and waits until it runs; the pid, or -1 with *failure filled. */
static pid_t command_start(const struct command *command, const int *fds, struct failure *failure)
{
    int report[2];
    pid_t pid;

    failure->stage = CONTROL_SPAWN_RESOURCES;
    if (pipe2(report, O_CLOEXEC) < 0) {
        failure->error = errno;
        return -1;
    }
    pid = fork();
    failure->error = errno;
    if (pid == 0)
        child_run(command, fds, report[1]);
    close(report[1]);
    /* Closed by exec: nothing to read means that the command runs. A failed child is reaped like an orphan. */
    if (pid > 0 && read(report[0], failure, sizeof *failure) == (ssize_t)sizeof *failure)
        pid = -1;
    close(report[0]);
    return pid;
}

/* Reads the command and starts it; the pid, or -1 with *failure filled. */
static pid_t run_order(struct command *command, const struct control_message *order, struct failure *failure)
{
    if (command_read(command, order))
        return command_start(command, order->fds, failure);
    *failure = (struct failure){.stage = CONTROL_SPAWN_RESOURCES, .error = errno};
    return -1;
}

/* The same on a new terminal, whose master is put into the answer. */
static pid_t run_order_on_terminal(struct command *command, const struct control_message *order,
                                   struct control_message *answer, struct failure *failure)
{
    struct winsize window;
    int master;
    pid_t pid;

    memcpy(&window, order->payload, sizeof window);
    master = make_terminal(&window, &command->terminal_fd);
    if (master < 0) {
        *failure = (struct failure){.stage = CONTROL_SPAWN_RESOURCES, .error = errno};
        return -1;
    }
    pid = run_order(command, order, failure);
    close(command->terminal_fd);
    if (pid > 0)
        answer->fds[answer->fd_count++] = master;
    else
        close(master);
    return pid;
}

void spawn_command(struct children *children, struct control_message *order, struct control_message *answer)
{
    struct command command = {.terminal_fd = -1};
    struct failure failure = {.stage = CONTROL_SPAWN_RESOURCES, .error = EAGAIN};
    bool on_terminal = order->header.kind == CONTROL_SPAWN_PTY;
    pid_t pid = -1;

    if (order->fd_count != (on_terminal ? 1 : FD_COUNT) || order->header.value < 0 ||
        (on_terminal && order->payload_bytes != sizeof(struct winsize))) {
        failure.error = EINVAL;
    } else if (children->count < CHILDREN_MAX) {
        pid = on_terminal ? run_order_on_terminal(&command, order, answer, &failure)
                          : run_order(&command, order, &failure);
    }
    command_free(&command);
    if (pid > 0) {
        children->pids[children->count++] = pid;
        answer->header.value = pid;
    } else {
        answer->header.value = -failure.error;
        answer->header.flags = (uint32_t)failure.stage;
    }
}

/* The place of a pid among the children, or count when it is none. */
static size_t find_child(const struct children *children, pid_t pid)
{
    size_t i = 0;

    while (i < children->count && children->pids[i] != pid)
        i++;
    return i;
}

void signal_command(const struct children *children, pid_t pid, int signal_number)
{
    if (find_child(children, pid) < children->count)
        kill(pid, signal_number);
}

bool forget_child(struct children *children, pid_t pid)
{
    size_t i = find_child(children, pid);

    if (i == children->count)
        return false;
    children->pids[i] = children->pids[--children->count];
    return true;
}
