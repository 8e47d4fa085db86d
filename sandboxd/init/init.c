#include "sandboxd/init/init.h"

#include "sandboxd/init/talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LISTENERS_MAX    32
#define LISTEN_BACKLOG   64
#define OPEN_FILES_LIMIT 8192
/* Memory that cannot be swapped, or lies in the kernel: the usual limit of a user. */
#define LOCKED_LIMIT_BYTES (8 * 1024 * 1024)

struct listener {
    int fd;
    uint32_t tag;
};

/* What this process is. */
struct init {
    int control_fd;
    int signal_fd;
    size_t listener_count;
    struct listener listeners[LISTENERS_MAX];
    struct children children;
    struct control_message order;
    struct control_message answer;
};

/* Ends the sandbox: the kernel kills all that is left in the pid namespace. */
static _Noreturn void give_up(const char *what)
{
    dprintf(STDERR_FILENO, "sandbox-init: %s: %s\n", what, strerror(errno));
    _exit(1);
}

/* Sends the prepared answer and drops its descriptors; blocks while sandboxd is busy, which stalls this sandbox only.
 */
static void answer_send(struct init *init)
{
    if (control_send(init->control_fd, &init->answer) != CONTROL_OK)
        _exit(0);
    control_close_fds(&init->answer);
}

/* Starts an empty answer. */
static struct control_message *answer_begin(struct init *init, enum control_kind kind, uint32_t tag)
{
    init->answer.header = (struct control_header){.kind = kind, .tag = tag};
    init->answer.fd_count = 0;
    init->answer.payload_bytes = 0;
    return &init->answer;
}

/* A listening TCP socket on the address, or -1 with errno. */
static int listen_on(const struct sockaddr *address, socklen_t length)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int on = 1;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 || bind(fd, address, length) < 0 ||
        listen(fd, LISTEN_BACKLOG) < 0) {
        int saved = errno;

        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

/* CONTROL_LISTEN: only a failure is answered. */
static void order_listen(struct init *init)
{
    struct sockaddr_storage address = {0};
    int fd = -1;

    if (init->order.payload_bytes > sizeof address || init->listener_count == LISTENERS_MAX) {
        errno = EINVAL;
    } else {
        memcpy(&address, init->order.payload, init->order.payload_bytes);
        fd = listen_on((const struct sockaddr *)&address, (socklen_t)init->order.payload_bytes);
    }
    if (fd < 0) {
        answer_begin(init, CONTROL_LISTEN_FAILED, init->order.header.tag)->header.value = errno;
        answer_send(init);
        return;
    }
    init->listeners[init->listener_count++] = (struct listener){.fd = fd, .tag = init->order.header.tag};
}

/* CONTROL_HELLO: the sandbox stands. From here on nothing is said on the descriptors bwrap left us. */
static void order_hello(struct init *init)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd < 0)
        give_up("/dev/null");
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null_fd, fd);
    close(null_fd);
    answer_begin(init, CONTROL_HELLO, init->order.header.tag);
    answer_send(init);
}

static void order_spawn(struct init *init)
{
    spawn_command(&init->children, &init->order, answer_begin(init, CONTROL_SPAWNED, init->order.header.tag));
    answer_send(init);
}

static void order_open(struct init *init)
{
    open_file(&init->order, answer_begin(init, CONTROL_OPENED, init->order.header.tag));
    answer_send(init);
}

static void order_signal(struct init *init)
{
    signal_command(&init->children, init->order.header.value, (int)init->order.header.flags);
}

/* All but this process: -1 passes over pid 1 and the caller. In no namespace but ours, whose pids are all it sees. */
static void order_freeze(struct init *init)
{
    kill(-1, init->order.header.flags != 0 ? SIGSTOP : SIGCONT);
    answer_begin(init, CONTROL_FROZEN, init->order.header.tag);
    answer_send(init);
}

/* CONTROL_FILESYSTEM: a process of its own, so that nothing it waits for holds us up. It ends by itself, and is reaped
 * like an orphan. */
static void order_filesystem(struct init *init)
{
    pid_t pid;

    if (init->order.fd_count != 1)
        return;
    pid = fork();
    if (pid == 0)
        talk_lead(init->order.fds[0]);
    if (pid < 0)
        talk_refuse(init->order.fds[0], errno);
}

static const struct {
    enum control_kind kind;
    void (*run)(struct init *init);
} orders[] = {
    {CONTROL_LISTEN, order_listen},         {CONTROL_HELLO, order_hello},
    {CONTROL_SPAWN, order_spawn},           {CONTROL_OPEN, order_open},
    {CONTROL_SIGNAL, order_signal},         {CONTROL_SPAWN_PTY, order_spawn},
    {CONTROL_FILESYSTEM, order_filesystem}, {CONTROL_FREEZE, order_freeze},
};

/* Takes one order. The end of the control socket is the end of the sandbox. */
static void take_order(struct init *init)
{
    enum control_result result = control_receive(init->control_fd, &init->order);

    if (result == CONTROL_AGAIN)
        return;
    if (result != CONTROL_OK)
        _exit(0);
    for (size_t i = 0; i < sizeof orders / sizeof *orders; i++) {
        if (orders[i].kind == init->order.header.kind)
            orders[i].run(init);
    }
    control_close_fds(&init->order);
}

/* Reaps all that ended; sandboxd hears of the commands, never of orphans. */
static void reap(struct init *init)
{
    struct signalfd_siginfo seen;
    int status;
    pid_t pid;

    while (read(init->signal_fd, &seen, sizeof seen) == (ssize_t)sizeof seen) {
    }
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (!forget_child(&init->children, pid))
            continue;
        answer_begin(init, CONTROL_EXITED, 0);
        init->answer.header.value = pid;
        init->answer.header.flags = (uint32_t)status;
        answer_send(init);
    }
}

/* Hands one new connection over to sandboxd, which speaks with it from then on. */
static void hand_over(struct init *init, const struct listener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    answer_begin(init, CONTROL_ACCEPTED, listener->tag);
    init->answer.fds[init->answer.fd_count++] = fd;
    answer_send(init);
}

/* One turn: wait, then exits first, so that a pid is reported dead before an order can name it again. */
static void turn(struct init *init)
{
    struct pollfd watched[2 + LISTENERS_MAX] = {
        {.fd = init->signal_fd, .events = POLLIN},
        {.fd = init->control_fd, .events = POLLIN},
    };

    for (size_t i = 0; i < init->listener_count; i++)
        watched[2 + i] = (struct pollfd){.fd = init->listeners[i].fd, .events = POLLIN};
    if (poll(watched, 2 + init->listener_count, -1) < 0)
        return;
    if (watched[0].revents != 0)
        reap(init);
    for (size_t i = 0; i < init->listener_count; i++) {
        if (watched[2 + i].revents != 0)
            hand_over(init, &init->listeners[i]);
    }
    if (watched[1].revents != 0)
        take_order(init);
}

/* Limits for init and all its descendants; soft and hard, so that nobody raises them again. */
static void set_limits(rlim_t processes, rlim_t data_bytes, rlim_t file_bytes)
{
    const struct {
        __rlimit_resource_t resource;
        rlim_t value;
    } limits[] = {
        {RLIMIT_CORE, 0},
        {RLIMIT_NOFILE, OPEN_FILES_LIMIT},
        {RLIMIT_NPROC, processes},
        {RLIMIT_DATA, data_bytes},
        {RLIMIT_FSIZE, file_bytes},
        {RLIMIT_MEMLOCK, LOCKED_LIMIT_BYTES},
        {RLIMIT_MSGQUEUE, LOCKED_LIMIT_BYTES},
        /* Root's own may be without bounds: no real time, no better than the host's programs. */
        {RLIMIT_RTPRIO, 0},
        {RLIMIT_NICE, 0},
    };

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        struct rlimit limit;

        if (limits[i].value == RLIM_INFINITY)
            continue;
        if (getrlimit(limits[i].resource, &limit) < 0)
            give_up("getrlimit");
        if (limit.rlim_max > limits[i].value)
            limit.rlim_max = limits[i].value;
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(limits[i].resource, &limit) < 0)
            give_up("setrlimit");
    }
}

/* A limit from the command line: 0 is none. */
static rlim_t parse_limit(const char *text)
{
    unsigned long long value = strtoull(text, NULL, 10);

    return value == 0 ? RLIM_INFINITY : (rlim_t)value;
}

/* sandbox-init CONTROL_FD PROCESSES DATA_BYTES FILE_BYTES */
int main(int argc, char **argv)
{
    static struct init init;
    sigset_t child_signal;

    if (argc != 5) {
        dprintf(STDERR_FILENO, "sandbox-init: started by sandboxd only\n");
        return 2;
    }
    init.control_fd = atoi(argv[1]);
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || fcntl(init.control_fd, F_SETFD, FD_CLOEXEC) < 0)
        give_up("start");
    umask(022);
    set_limits(parse_limit(argv[2]), parse_limit(argv[3]), parse_limit(argv[4]));
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    if (sigprocmask(SIG_SETMASK, &child_signal, NULL) < 0)
        give_up("sigprocmask");
    init.signal_fd = signalfd(-1, &child_signal, SFD_NONBLOCK | SFD_CLOEXEC);
    if (init.signal_fd < 0)
        give_up("signalfd");
    for (;;)
        turn(&init);
}
