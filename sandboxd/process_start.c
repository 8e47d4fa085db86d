/* process_start: a command on its way into its sandbox: what it is given, the order to init, init's answer. */
#include "sandboxd/process_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define COMMAND_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* Strings of one command: what execve(2) takes, and no more. */
#define STRINGS_MAX_BYTES (2 * 1024 * 1024)
#define PIPE_READ_END     0
#define PIPE_WRITE_END    1

/* --- what it is given ----------------------------------------------------------------------------- */

/* The environment, later entries winning: ours, the sandbox's, the request's. */
static json_t *make_environment(const struct sandbox *sandbox, const json_t *envs)
{
    json_t *all = json_pack("{s:s, s:s, s:s, s:s}", "PATH", COMMAND_PATH, "HOME", JAIL_HOME, "USER", JAIL_USER,
                            "LOGNAME", JAIL_USER);

    if (all == NULL || sandbox_add_proxy_envs(sandbox, all) < 0 || json_object_update(all, sandbox->envs) < 0 ||
        (envs != NULL && json_object_update(all, (json_t *)envs) < 0)) {
        json_decref(all);
        return NULL;
    }
    return all;
}

/* Writes the strings of CONTROL_SPAWN; returns the number of environment entries. */
static unsigned put_strings(FILE *out, const struct process_wish *wish, const json_t *environment, const char *cwd)
{
    const json_t *entry;
    const char *key;
    json_t *value;
    unsigned count = 0;
    size_t i;

    fwrite(wish->cmd, 1, strlen(wish->cmd) + 1, out);
    json_array_foreach(wish->args, i, entry)
    {
        fwrite(json_string_value(entry), 1, json_string_length(entry) + 1, out);
    }
    json_object_foreach((json_t *)environment, key, value)
    {
        fprintf(out, "%s=%s%c", key, json_string_value(value), '\0');
        count++;
    }
    fwrite(cwd, 1, strlen(cwd) + 1, out);
    return count;
}

/* A memfd with the strings of the command; -1 with errno. */
static int make_strings(const struct sandbox *sandbox, const struct process_wish *wish, const char *cwd, unsigned *envc)
{
    json_t *environment = make_environment(sandbox, wish->envs);
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = environment == NULL ? NULL : open_memstream(&text, &bytes);
    int fd = -1;

    if (out != NULL) {
        *envc = put_strings(out, wish, environment, cwd);
        errno = fclose(out) != 0 ? ENOMEM : E2BIG;
        if (errno == E2BIG && bytes <= STRINGS_MAX_BYTES)
            fd = memfd_create("command", MFD_CLOEXEC);
        if (fd >= 0 && write(fd, text, bytes) != (ssize_t)bytes) {
            close(fd);
            fd = -1;
        }
    }
    free(text);
    json_decref(environment);
    return fd;
}

/* What goes over to init: the ends of the pipes that the command gets. */
struct stdio {
    int fds[CONTROL_FDS_MAX];
};

/* Makes a pipe: the command's end into theirs, ours non-blocking. false with errno. */
static bool make_pipe(struct process *process, int command_end, int *ours, int *theirs)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        return false;
    *ours = ends[1 - command_end];
    *theirs = ends[command_end];
    sandbox_give(process->sandbox, *theirs);
    return fcntl(*ours, F_SETFL, O_NONBLOCK) == 0;
}

/* Makes the standard descriptors of the command; false with errno, and what was made is in stdio and process. */
static bool make_stdio(struct process *process, bool has_stdin, struct stdio *stdio)
{
    if (process->has_pty) /* init makes the terminal */
        return true;
    if (has_stdin) {
        if (!make_pipe(process, PIPE_READ_END, &process->input_fd, &stdio->fds[1]))
            return false;
    } else {
        stdio->fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    return stdio->fds[1] >= 0 && make_pipe(process, PIPE_WRITE_END, &process->fds[PROCESS_STDOUT], &stdio->fds[2]) &&
           make_pipe(process, PIPE_WRITE_END, &process->fds[PROCESS_STDERR], &stdio->fds[3]) &&
           process_watch_output(process, PROCESS_STDOUT) && process_watch_output(process, PROCESS_STDERR);
}

/* --- init's answer -------------------------------------------------------------------------------- */

/* Says why init could not spawn it. */
static void spawn_failed(struct process *process, int error, unsigned stage)
{
    const char *reason = strerror(error);
    const char *cwd = json_string_value(json_object_get(process->config, "cwd"));
    const char *cmd = json_string_value(json_object_get(process->config, "cmd"));
    char *message = NULL;
    int length;

    if (stage == CONTROL_SPAWN_CWD && (error == ENOENT || error == ENOTDIR))
        length = asprintf(&message, "cwd '%s' does not exist", cwd);
    else if (stage == CONTROL_SPAWN_CWD)
        length = asprintf(&message, "error starting process: chdir %s: %s", cwd, reason);
    else if (process->has_pty)
        length = asprintf(&message, "error starting pty with command '%s' in dir '%s' with '%u' cols and '%u' rows: %s",
                          cmd, cwd, process->size.cols, process->size.rows, reason);
    else
        length = asprintf(&message, "error starting process '%s': %s", cmd, reason);
    process_fail(process, RPC_INVALID_ARGUMENT, length < 0 ? "error starting process" : message);
    free(message);
}

/* Takes the terminal out of init's answer: once to read from, once to write to. false with errno. */
static bool take_pty(struct process *process, struct control_message *answer)
{
    unsigned number;
    int fd;

    errno = EPROTO;
    /* It comes from a sandbox: only the master of a pseudo terminal is one. */
    if (answer->fd_count != 1 || ioctl(answer->fds[0], TIOCGPTN, &number) < 0)
        return false;
    fd = answer->fds[0];
    answer->fds[0] = -1;
    process->fds[PROCESS_PTY] = fd;
    process->input_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return process->input_fd >= 0 && fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0 &&
           process_watch_output(process, PROCESS_PTY);
}

/* Init spawned it, or not. */
static void on_spawned(struct control_message *answer, void *arg)
{
    struct process *process = arg;

    if (answer->header.value <= 0) {
        spawn_failed(process, -answer->header.value, answer->header.flags);
    } else if (process->has_pty && !take_pty(process, answer)) {
        sandbox_order_signal(process->sandbox, answer->header.value, SIGKILL);
        spawn_failed(process, errno, CONTROL_SPAWN_RESOURCES);
    } else {
        process_began(process, answer->header.value);
    }
}

/* --- the order ------------------------------------------------------------------------------------ */

/* What List shows of it. The reference is the caller's. */
static json_t *make_config(const struct process_wish *wish, const char *cwd)
{
    json_t *config = json_pack("{s:s, s:s}", "cmd", wish->cmd, "cwd", cwd);

    if (json_array_size(wish->args) > 0)
        json_object_set(config, "args", (json_t *)wish->args);
    if (json_object_size(wish->envs) > 0)
        json_object_set(config, "envs", (json_t *)wish->envs);
    return config;
}

/* Allocates a process that hangs on nothing yet; NULL when memory is out. */
static struct process *process_new(struct event_base *base, struct sandbox *sandbox, const struct process_wish *wish,
                                   const char *cwd)
{
    struct process *process = calloc(1, sizeof *process);

    if (process == NULL)
        return NULL;
    process->base = base;
    process->sandbox = sandbox;
    process->state = PROCESS_SPAWNING;
    process->has_pty = wish->has_pty;
    process->size = wish->size;
    process->input_fd = -1;
    for (int i = 0; i < PROCESS_OUTPUTS; i++)
        process->fds[i] = -1;
    STAILQ_INIT(&process->inputs);
    process->watch.ended = process_sandbox_ended;
    process->config = make_config(wish, cwd);
    process->tag = wish->tag == NULL ? NULL : strdup(wish->tag);
    process->timer = evtimer_new(base, process_on_timer, process);
    if (process->config == NULL || process->timer == NULL) {
        process_free(process);
        return NULL;
    }
    return process;
}

/* Starts the clock of Connect-Timeout-Ms, if there is one; false when memory is out. */
static bool set_deadline(struct process *process, const struct process_wish *wish)
{
    const struct timeval left = {.tv_sec = (time_t)(wish->deadline_ms / 1000),
                                 .tv_usec = (suseconds_t)(wish->deadline_ms % 1000 * 1000)};

    return !wish->has_deadline || evtimer_add(process->timer, &left) == 0;
}

static void close_stdio(struct stdio *stdio)
{
    for (int i = 0; i < CONTROL_FDS_MAX; i++) {
        if (stdio->fds[i] >= 0)
            close(stdio->fds[i]);
    }
}

/* Orders the spawn; false with errno. The descriptors in stdio are closed in every case. */
static bool order_spawn(struct process *process, const struct process_wish *wish, const char *cwd, struct stdio *stdio)
{
    const struct winsize window = {.ws_col = wish->size.cols, .ws_row = wish->size.rows};
    int argc = 1 + (int)json_array_size(wish->args);
    unsigned envc = 0;

    stdio->fds[0] = make_strings(process->sandbox, wish, cwd, &envc);
    if (stdio->fds[0] >= 0) {
        errno = EAGAIN;
        return wish->has_pty
                   ? sandbox_order_spawn_pty(process->sandbox, argc, envc, stdio->fds[0], &window, on_spawned, process)
                   : sandbox_order_spawn(process->sandbox, argc, envc, stdio->fds, on_spawned, process);
    }
    close_stdio(stdio);
    return false;
}

bool process_start(struct event_base *base, struct sandbox *sandbox, const struct process_wish *wish,
                   struct process_subscriber *subscriber)
{
    struct stdio stdio = {.fds = {-1, -1, -1, -1}};
    char *cwd = process_resolve_path(wish->cwd);
    struct process *process;
    bool ordered = false;

    errno = EINVAL;
    process = cwd == NULL ? NULL : process_new(base, sandbox, wish, cwd);
    if (process != NULL && make_stdio(process, wish->has_stdin, &stdio) && set_deadline(process, wish))
        ordered = order_spawn(process, wish, cwd, &stdio);
    else
        close_stdio(&stdio);
    free(cwd);
    if (!ordered) {
        if (process != NULL)
            process_free(process);
        return false;
    }
    subscriber->process = process;
    LIST_INSERT_HEAD(&process->subscribers, subscriber, next);
    LIST_INSERT_HEAD(&sandbox->processes, process, next);
    sandbox_watch_add(sandbox, &process->watch);
    return true;
}
