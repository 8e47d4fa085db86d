/* sandboxd: the local runtime. E2B's control API and envd on one unix socket, each sandbox one bubblewrap. */
#include "common/log.h"
#include "sandboxd/check.h"
#include "sandboxd/daemon.h"
#include "sandboxd/gate.h"
#include "sandboxd/options.h"
#include "sandboxd/process.h"
#include "sandboxd/server.h"
#include "sandboxd/template_command.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define INHERITED_FD   3
#define LISTEN_BACKLOG 512

/* All of this process. */
struct program {
    struct options options;
    char init_path[PATH_MAX];
    struct jail *jail;
    struct gate gate;
    struct sandbox_hooks hooks;
    struct daemon daemon;
    struct server *server;
    struct event *signals[3];
    struct event *owner; /* NULL: nobody's */
};

/* --- before the loop ------------------------------------------------------------------------------ */

/* The default init lies beside this program. */
static bool find_init(struct program *program)
{
    static const char name[] = "sandbox-init";
    ssize_t length;
    char *slash;

    if (program->options.init_path != NULL)
        return true;
    length = readlink("/proc/self/exe", program->init_path, sizeof program->init_path - sizeof name);
    if (length < 0)
        return false;
    program->init_path[length] = '\0';
    slash = strrchr(program->init_path, '/');
    if (slash == NULL)
        return false;
    strcpy(slash + 1, name);
    program->options.init_path = program->init_path;
    return true;
}

/* Descriptors are what runs out first: three for a sandbox, three for a command, one for a connection. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("descriptor limit: %s", strerror(errno));
    log_info("up to %llu descriptors", (unsigned long long)limit.rlim_cur);
}

/* Whether systemd's protocol says that descriptor 3 is a socket for us. */
static bool has_inherited_socket(void)
{
    const char *count = getenv("LISTEN_FDS");
    const char *pid = getenv("LISTEN_PID");

    return count != NULL && atoi(count) >= 1 && (pid == NULL || atoi(pid) == (int)getpid());
}

/* Removes a socket that nobody listens on any more; false when somebody does. */
static bool remove_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;

    if (fd >= 0)
        close(fd);
    if (alive)
        return false;
    return unlink(address->sun_path) == 0 || errno == ENOENT;
}

/* A socket for the owner only: its mode is what guards the API. -1 with the reason logged. */
static int bind_socket(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t before;
    int fd, result;

    if (strlen(path) >= sizeof address.sun_path) {
        log_error("socket %s: the path is longer than %zu bytes", path, sizeof address.sun_path - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    if (!remove_stale(&address)) {
        log_error("socket %s: in use by another process", path);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    before = umask(0177);
    result = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof address);
    umask(before);
    if (result < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        log_error("socket %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

/* The listening socket, bound or inherited; -1 with the reason logged. */
static int listening_socket(const struct options *options)
{
    int listening = 0;
    socklen_t length = sizeof listening;

    if (options->socket_path != NULL)
        return bind_socket(options->socket_path);
    if (!has_inherited_socket()) {
        log_error("no socket: give --socket PATH, or pass one by LISTEN_FDS");
        return -1;
    }
    if (getsockopt(INHERITED_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening) {
        log_error("descriptor %d was announced by LISTEN_FDS but is no listening socket", INHERITED_FD);
        return -1;
    }
    fcntl(INHERITED_FD, F_SETFL, O_NONBLOCK);
    fcntl(INHERITED_FD, F_SETFD, FD_CLOEXEC);
    return INHERITED_FD;
}

/* Tells who waits that requests are taken. */
static void tell_ready(int fd)
{
    if (fd < 0)
        return;
    if (write(fd, "\n", 1) != 1)
        log_warn("ready descriptor %d: %s", fd, strerror(errno));
    close(fd);
}

/* --- signals -------------------------------------------------------------------------------------- */

static void stop_loop(void *arg)
{
    struct program *program = arg;

    event_base_loopbreak(program->daemon.base);
}

static void on_stop(evutil_socket_t signal_number, short what, void *arg)
{
    struct program *program = arg;

    (void)what;
    log_info("%s: ending all sandboxes", strsignal(signal_number));
    sandbox_table_end_all(program->daemon.sandboxes, stop_loop, program);
}

/* The owners' pipe is at its end: those who made the sandboxes are gone, however they ended. Nothing is ever sent. */
static void on_owner(evutil_socket_t fd, short what, void *arg)
{
    struct program *program = arg;
    char byte;

    (void)what;
    if (read(fd, &byte, 1) > 0)
        return;
    log_info("all owners are gone: ending all sandboxes");
    event_del(program->owner);
    sandbox_table_end_all(program->daemon.sandboxes, stop_loop, program);
}

static bool watch_owner(struct program *program)
{
    int fd = program->options.owner_fd;

    if (fd < 0)
        return true;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    program->owner = event_new(program->daemon.base, fd, EV_READ | EV_PERSIST, on_owner, program);
    return program->owner != NULL && event_add(program->owner, NULL) == 0;
}

static void on_child(evutil_socket_t signal_number, short what, void *arg)
{
    struct program *program = arg;
    int status;
    pid_t pid;

    (void)signal_number;
    (void)what;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        sandbox_table_reaped(program->daemon.sandboxes, pid, status);
}

static bool watch_signals(struct program *program)
{
    static const struct {
        int number;
        event_callback_fn callback;
    } watched[] = {{SIGTERM, on_stop}, {SIGINT, on_stop}, {SIGCHLD, on_child}};

    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        program->signals[i] = evsignal_new(program->daemon.base, watched[i].number, watched[i].callback, program);
        if (program->signals[i] == NULL || evsignal_add(program->signals[i], NULL) < 0)
            return false;
    }
    return true;
}

/* Ends with the parent, also when it ended before this was called. */
static bool follow_parent(void)
{
    pid_t parent = getppid();

    return prctl(PR_SET_PDEATHSIG, SIGTERM) == 0 && getppid() == parent;
}

/* --- parts ---------------------------------------------------------------------------------------- */

/* Whether an endpoint must be resolved by name. */
static bool needs_resolver(const struct endpoint_list *allowed)
{
    unsigned char address[sizeof(struct in6_addr)];

    for (size_t i = 0; i < allowed->count; i++) {
        const char *host = allowed->entries[i].host;

        if (evutil_inet_pton(AF_INET, host, address) != 1 && evutil_inet_pton(AF_INET6, host, address) != 1)
            return true;
    }
    return false;
}

/* What the program is made of; the reason of a failure is logged. */
static bool program_init(struct program *program)
{
    char error[JAIL_ERROR_MAX_BYTES];
    struct options *options = &program->options;

    if (!find_init(program)) {
        log_error("/proc/self/exe: %s", strerror(errno));
        return false;
    }
    program->jail = jail_new(options->init_path, &options->limits, error);
    if (program->jail == NULL) {
        log_error("%s", error);
        return false;
    }
    /* Whatever a sandbox leaves behind when bwrap is killed comes to us to be reaped. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    program->daemon.base = event_base_new();
    if (program->daemon.base == NULL || !watch_signals(program) || !watch_owner(program)) {
        log_error("event loop: %s", strerror(errno));
        return false;
    }
    program->gate = (struct gate){.base = program->daemon.base, .allowed = &options->network_allow};
    if (needs_resolver(&options->network_allow)) {
        program->gate.dns =
            evdns_base_new(program->daemon.base, EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
        if (program->gate.dns == NULL)
            log_warn("no name server found: endpoints of network_allow are reached by address only");
    }
    program->hooks = (struct sandbox_hooks){.exited = process_exited, .accepted = gate_accepted, .arg = &program->gate};
    program->daemon.template_dir = options->template_dir;
    program->daemon.limits = &options->limits;
    program->daemon.sandboxes =
        sandbox_table_new(program->daemon.base, program->jail, &options->network_allow, &program->hooks);
    return program->daemon.sandboxes != NULL;
}

static void program_free(struct program *program)
{
    server_free(program->server);
    sandbox_table_free(program->daemon.sandboxes);
    if (program->gate.dns != NULL)
        evdns_base_free(program->gate.dns, 0);
    for (size_t i = 0; i < sizeof program->signals / sizeof *program->signals; i++) {
        if (program->signals[i] != NULL)
            event_free(program->signals[i]);
    }
    if (program->owner != NULL)
        event_free(program->owner);
    if (program->daemon.base != NULL)
        event_base_free(program->daemon.base);
    jail_free(program->jail);
    libevent_global_shutdown();
}

/* Serves until a signal; the exit code. */
static int serve(struct program *program)
{
    int listen_fd = listening_socket(&program->options);

    if (listen_fd < 0)
        return 1;
    program->server = server_new(&program->daemon, listen_fd);
    if (program->server == NULL) {
        log_error("HTTP server: out of memory");
        close(listen_fd);
        return 1;
    }
    log_info("sandboxd " SANDSTORM_VERSION " on %s, libevent %s, %zu endpoints allowed, home %u MiB, %u processes",
             program->options.socket_path != NULL ? program->options.socket_path : "an inherited socket",
             event_get_version(), program->options.network_allow.count, program->options.limits.disk_mib,
             program->options.limits.processes);
    raise_descriptor_limit();
    tell_ready(program->options.ready_fd);
    event_base_dispatch(program->daemon.base);
    if (program->options.socket_path != NULL)
        unlink(program->options.socket_path);
    return 0;
}

int main(int argc, char **argv)
{
    static struct program program;
    int exit_code = 1;

    if (argc > 1 && strcmp(argv[1], "template") == 0)
        return template_command(argc - 1, argv + 1);
    switch (options_parse(&program.options, argc, argv)) {
    case OPTIONS_HELP:
        return 0;
    case OPTIONS_USAGE:
        return 2;
    case OPTIONS_RUN:
        break;
    }
    log_open("sandboxd");
    log_set_level(program.options.check ? LOG_LEVEL_ERROR : program.options.log_level);
    if (program.options.die_with_parent && !follow_parent())
        log_error("the parent process is gone");
    else if (!program_init(&program))
        exit_code = 1;
    else if (program.options.check)
        exit_code = check_machine(program.daemon.base, program.daemon.sandboxes) ? 0 : 1;
    else
        exit_code = serve(&program);
    program_free(&program);
    return exit_code;
}
