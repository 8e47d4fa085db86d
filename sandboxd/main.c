/* sandboxd: the local runtime. E2B's control API and envd on a unix socket and on loopback, each sandbox one
 * bubblewrap. */
#include "common/log.h"
#include "sandboxd/check.h"
#include "sandboxd/daemon.h"
#include "sandboxd/gate.h"
#include "sandboxd/intake.h"
#include "sandboxd/listen.h"
#include "sandboxd/options.h"
#include "sandboxd/process.h"
#include "sandboxd/server.h"
#include "sandboxd/state_dir.h"
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
#include <sys/wait.h>
#include <unistd.h>

/* All of this process. */
struct program {
    struct options options;
    char init_path[PATH_MAX];
    struct jail *jail;
    struct gate gate;
    struct sandbox_hooks hooks;
    struct daemon daemon;
    int state_dir_fd; /* -1: none */
    struct api_keys *keys;
    struct server *unix_server; /* NULL: none, as the next */
    struct server *tcp_server;
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

/* Descriptors are what runs out first: three for a sandbox, three for a command, one for a connection. How many. */
static unsigned long long raise_descriptor_limit(void)
{
    struct rlimit limit = {.rlim_cur = 0};

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_panic("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        log_warn("descriptor limit: %s", strerror(errno));
    log_info("up to %llu descriptors", (unsigned long long)limit.rlim_cur);
    return limit.rlim_cur;
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
    if (program->daemon.base == NULL || event_base_priority_init(program->daemon.base, INTAKE_PRIORITIES) < 0 ||
        !watch_signals(program) || !watch_owner(program)) {
        log_error("event loop: %s", strerror(errno));
        return false;
    }
    if (!gate_open(&program->gate, program->daemon.base, &options->network))
        return false;
    program->hooks = (struct sandbox_hooks){.exited = process_exited, .accepted = gate_accepted, .arg = &program->gate};
    program->daemon.template_dir = options->template_dir;
    program->daemon.limits = &options->limits;
    program->daemon.max_sandboxes = options->max_sandboxes;
    program->daemon.sandboxes =
        sandbox_table_new(program->daemon.base, program->jail, &options->network, &program->hooks);
    return program->daemon.sandboxes != NULL;
}

static void program_free(struct program *program)
{
    server_free(program->unix_server);
    server_free(program->tcp_server);
    api_keys_free(program->keys);
    sandbox_table_free(program->daemon.sandboxes);
    gate_close(&program->gate);
    for (size_t i = 0; i < sizeof program->signals / sizeof *program->signals; i++) {
        if (program->signals[i] != NULL)
            event_free(program->signals[i]);
    }
    if (program->owner != NULL)
        event_free(program->owner);
    if (program->state_dir_fd >= 0)
        close(program->state_dir_fd);
    if (program->daemon.base != NULL)
        event_base_free(program->daemon.base);
    jail_free(program->jail);
    libevent_global_shutdown();
}

/* Serves on a socket, which is taken; NULL with the reason logged. */
static struct server *serve_on(struct program *program, int listen_fd, const struct api_keys *keys)
{
    struct server *server = listen_fd < 0 ? NULL : server_new(&program->daemon, listen_fd, keys);

    if (listen_fd >= 0 && server == NULL) {
        log_error("HTTP server: out of memory");
        close(listen_fd);
    }
    return server;
}

/* The unix socket, bound or inherited, if there is to be one. */
static bool serve_unix(struct program *program)
{
    const char *path = program->options.socket_path;

    if (path == NULL && !listen_is_inherited()) {
        if (program->options.listen.length != 0)
            return true;
        log_error("no socket: give --socket PATH or --listen ADDRESS:PORT, or pass one by LISTEN_FDS");
        return false;
    }
    program->unix_server = serve_on(program, path != NULL ? listen_unix(path) : listen_inherited(), NULL);
    if (program->unix_server != NULL)
        log_info("listens on %s", path != NULL ? path : "an inherited socket");
    return program->unix_server != NULL;
}

/* The keys that are taken over TCP; NULL with the reason logged. */
static struct api_keys *read_keys(const struct program *program)
{
    struct api_keys *keys = NULL;
    char *path;

    if (program->options.api_key_file != NULL || program->state_dir_fd < 0)
        return api_keys_new(program->options.api_key_file);
    path = state_dir_key_file(program->options.state_dir, program->state_dir_fd);
    if (path != NULL)
        keys = api_keys_new(path);
    free(path);
    return keys;
}

/* The TCP socket of --listen, if there is to be one. */
static bool serve_tcp(struct program *program)
{
    char name[LISTEN_NAME_MAX_BYTES];
    int fd;

    if (program->options.listen.length == 0)
        return true;
    program->keys = read_keys(program);
    fd = program->keys == NULL ? -1 : listen_tcp(&program->options.listen);
    if (fd >= 0)
        listen_name(fd, name);
    program->tcp_server = serve_on(program, fd, program->keys);
    if (program->tcp_server == NULL)
        return false;
    log_info("listens on %s", name);
    if (!api_keys_are_listed(program->keys))
        log_warn("neither --api-key-file nor --state-dir: every user of this machine may make sandboxes on %s", name);
    return true;
}

/* Serves until a signal; the exit code. */
static int serve(struct program *program)
{
    if (program->options.state_dir != NULL) {
        program->state_dir_fd = state_dir_open(program->options.state_dir);
        if (program->state_dir_fd < 0)
            return 1;
    }
    if (!serve_tcp(program) || !serve_unix(program))
        return 1;
    log_info(
        "sandboxd " SANDSTORM_VERSION ", libevent %s, network %s, %zu endpoints allowed, home %u MiB, %u processes",
        event_get_version(), program->options.network.mode == NETWORK_NONE ? "none" : "internet",
        program->options.network.allowed.count, program->options.limits.disk_mib, program->options.limits.processes);
    gate_set_descriptors(&program->gate, raise_descriptor_limit());
    tell_ready(program->options.ready_fd);
    event_base_dispatch(program->daemon.base);
    if (program->options.socket_path != NULL)
        unlink(program->options.socket_path);
    return 0;
}

int main(int argc, char **argv)
{
    static struct program program = {.state_dir_fd = -1};
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
