#include "sandboxd/process.h"

#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define COMMAND_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
/* Strings of one command: what execve(2) takes, and no more. */
#define STRINGS_MAX_BYTES (2 * 1024 * 1024)
#define PIPE_READ_END     0
#define PIPE_WRITE_END    1
/* After each read of output that nobody listens to: at most 6 MiB a second and process. */
#define UNHEARD_REST_MS 5

enum process_state {
    PROCESS_SPAWNING, /* ordered; no pid */
    PROCESS_RUNNING,  /* it has a pid */
    PROCESS_EXITED,   /* its status is known; a pipe may still be open */
};

struct process {
    LIST_ENTRY(process) next;
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    enum process_state state;
    pid_t pid;
    int wait_status;
    bool abandoned; /* SIGKILL or SIGTERM was sent through us: its pipes are not waited for */
    json_t *config;
    char *tag;
    int stdin_fd;             /* our end, or -1 */
    int fds[PROCESS_OUTPUTS]; /* our ends, -1 at their end */
    struct event *readable[PROCESS_OUTPUTS];
    struct event *deadline;
    struct event *rest; /* ends the pause after output that nobody listens to; made when first needed */
    const struct process_listener *listener; /* NULL: nobody listens */
    void *arg;
};

/* --- text ----------------------------------------------------------------------------------------- */

char *process_resolve_path(const char *path)
{
    char *resolved = NULL;

    if (path == NULL || *path == '\0')
        return strdup(JAIL_HOME);
    if (*path == '/')
        return strdup(path);
    if (*path == '~' && path[1] != '\0' && path[1] != '/')
        return NULL;
    if (*path == '~')
        return asprintf(&resolved, JAIL_HOME "%s", path + 1) < 0 ? NULL : resolved;
    return asprintf(&resolved, JAIL_HOME "/%s", path) < 0 ? NULL : resolved;
}

const char *process_status_text(int wait_status, char out[static PROCESS_STATUS_MAX_BYTES])
{
    int used;

    if (WIFEXITED(wait_status)) {
        snprintf(out, PROCESS_STATUS_MAX_BYTES, "exit status %d", WEXITSTATUS(wait_status));
        return out;
    }
    used = snprintf(out, PROCESS_STATUS_MAX_BYTES, "signal: %s%s", strsignal(WTERMSIG(wait_status)),
                    WCOREDUMP(wait_status) ? " (core dumped)" : "");
    for (int i = 0; i < used && i < PROCESS_STATUS_MAX_BYTES; i++)
        out[i] = (char)tolower((unsigned char)out[i]);
    return out;
}

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

/* --- its life ------------------------------------------------------------------------------------- */

static void close_output(struct process *process, enum process_output output)
{
    if (process->readable[output] != NULL)
        event_free(process->readable[output]);
    process->readable[output] = NULL;
    if (process->fds[output] >= 0)
        close(process->fds[output]);
    process->fds[output] = -1;
}

static void process_free(struct process *process)
{
    for (int i = 0; i < PROCESS_OUTPUTS; i++)
        close_output(process, (enum process_output)i);
    if (process->stdin_fd >= 0)
        close(process->stdin_fd);
    if (process->deadline != NULL)
        event_free(process->deadline);
    if (process->rest != NULL)
        event_free(process->rest);
    json_decref(process->config);
    free(process->tag);
    free(process);
}

/* Takes it off its sandbox: from here on only its owner on the stack knows it. */
static void process_detach(struct process *process)
{
    LIST_REMOVE(process, next);
    sandbox_watch_remove(&process->watch);
}

/* The sandbox ends, and a spawn in flight is never answered. Its listener has a watch of its own. */
static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct process *process = (struct process *)((char *)watch - offsetof(struct process, watch));

    LIST_REMOVE(process, next);
    process_free(process);
}

/* Ends it with an error. */
static void process_fail(struct process *process, enum rpc_code code, const char *message)
{
    /* First off the sandbox, because the listener may end that. */
    process_detach(process);
    if (process->listener != NULL)
        process->listener->failed(process->arg, code, message);
    process_free(process);
}

/* Ends it if there is nothing more to come. */
static void check_ended(struct process *process)
{
    bool silent = process->fds[PROCESS_STDOUT] < 0 && process->fds[PROCESS_STDERR] < 0;

    if (process->state == PROCESS_EXITED && (silent || process->abandoned)) {
        process_detach(process);
        if (process->listener != NULL)
            process->listener->ended(process->arg, process->wait_status);
        process_free(process);
    } else if (silent && process->listener != NULL) {
        process->listener->silent(process->arg);
    }
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    process_resume(arg);
}

/* Reads nothing for a moment: who prints at full speed to nobody must not keep us, and so a core, busy for ever. */
static void take_rest(struct process *process, enum process_output output)
{
    const struct timeval pause = {.tv_usec = UNHEARD_REST_MS * 1000};

    if (process->rest == NULL)
        process->rest = evtimer_new(event_get_base(process->readable[output]), on_rested, process);
    if (process->rest == NULL || evtimer_add(process->rest, &pause) < 0)
        log_panic("out of memory");
    process_pause(process);
}

static void on_output(struct process *process, enum process_output output)
{
    char bytes[PROCESS_OUTPUT_MAX_BYTES];
    ssize_t got = read(process->fds[output], bytes, sizeof bytes);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (got > 0) {
        if (process->listener != NULL)
            process->listener->output(process->arg, output, bytes, (size_t)got);
        else
            take_rest(process, output);
        return;
    }
    close_output(process, output);
    check_ended(process);
}

static void on_stdout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    on_output(arg, PROCESS_STDOUT);
}

static void on_stderr(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    on_output(arg, PROCESS_STDERR);
}

/* Connect-Timeout-Ms: the stream ends and the process, it alone, is killed. It counts from the start, whoever listens.
 */
static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct process *process = arg;
    const struct process_listener *listener = process->listener;

    (void)fd;
    (void)what;
    process->listener = NULL;
    process->abandoned = true;
    if (process->state == PROCESS_RUNNING)
        process_signal(process, SIGKILL);
    if (listener != NULL)
        listener->failed(process->arg, RPC_DEADLINE_EXCEEDED, "context deadline exceeded");
}

/* Says why init could not spawn it. */
static void spawn_failed(struct process *process, const struct control_header *answer)
{
    const char *reason = strerror(-answer->value);
    const char *cwd = json_string_value(json_object_get(process->config, "cwd"));
    const char *cmd = json_string_value(json_object_get(process->config, "cmd"));
    char *message = NULL;
    int length;

    if (answer->flags == CONTROL_SPAWN_CWD && (answer->value == -ENOENT || answer->value == -ENOTDIR))
        length = asprintf(&message, "cwd '%s' does not exist", cwd);
    else if (answer->flags == CONTROL_SPAWN_CWD)
        length = asprintf(&message, "error starting process: chdir %s: %s", cwd, reason);
    else
        length = asprintf(&message, "error starting process '%s': %s", cmd, reason);
    process_fail(process, RPC_INVALID_ARGUMENT, length < 0 ? "error starting process" : message);
    free(message);
}

/* Init spawned it, or not. */
static void on_spawned(struct control_message *answer, void *arg)
{
    struct process *process = arg;

    if (answer->header.value <= 0) {
        spawn_failed(process, &answer->header);
        return;
    }
    process->pid = answer->header.value;
    process->state = PROCESS_RUNNING;
    if (process->listener != NULL) {
        process->listener->started(process->arg, process->pid);
    } else if (process->abandoned) { /* its deadline passed before it had a pid */
        process_signal(process, SIGKILL);
    }
    process_resume(process);
}

void process_exited(struct sandbox *sandbox, pid_t pid, int wait_status)
{
    struct process *process = process_find(sandbox, pid, NULL);

    if (process == NULL)
        return;
    process->state = PROCESS_EXITED;
    process->wait_status = wait_status;
    check_ended(process);
}

/* --- the start ------------------------------------------------------------------------------------ */

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
    if (has_stdin) {
        if (!make_pipe(process, PIPE_READ_END, &process->stdin_fd, &stdio->fds[1]))
            return false;
    } else {
        stdio->fds[1] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
    return stdio->fds[1] >= 0 && make_pipe(process, PIPE_WRITE_END, &process->fds[PROCESS_STDOUT], &stdio->fds[2]) &&
           make_pipe(process, PIPE_WRITE_END, &process->fds[PROCESS_STDERR], &stdio->fds[3]);
}

/* Makes the events of a process; false when memory is out. */
static bool make_events(struct process *process, struct event_base *base, const struct process_wish *wish)
{
    process->readable[PROCESS_STDOUT] =
        event_new(base, process->fds[PROCESS_STDOUT], EV_READ | EV_PERSIST, on_stdout, process);
    process->readable[PROCESS_STDERR] =
        event_new(base, process->fds[PROCESS_STDERR], EV_READ | EV_PERSIST, on_stderr, process);
    if (process->readable[PROCESS_STDOUT] == NULL || process->readable[PROCESS_STDERR] == NULL)
        return false;
    if (wish->has_deadline) {
        struct timeval left = {.tv_sec = (time_t)(wish->deadline_ms / 1000),
                               .tv_usec = (suseconds_t)(wish->deadline_ms % 1000 * 1000)};

        process->deadline = evtimer_new(base, on_deadline, process);
        return process->deadline != NULL && evtimer_add(process->deadline, &left) == 0;
    }
    return true;
}

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
static struct process *process_new(struct sandbox *sandbox, const struct process_wish *wish, const char *cwd)
{
    struct process *process = calloc(1, sizeof *process);

    if (process == NULL)
        return NULL;
    process->sandbox = sandbox;
    process->state = PROCESS_SPAWNING;
    process->stdin_fd = process->fds[PROCESS_STDOUT] = process->fds[PROCESS_STDERR] = -1;
    process->watch.ended = on_sandbox_ended;
    process->config = make_config(wish, cwd);
    process->tag = wish->tag == NULL ? NULL : strdup(wish->tag);
    return process;
}

/* Orders the spawn. The descriptors in stdio are closed in every case. */
static bool order_spawn(struct process *process, const struct process_wish *wish, const char *cwd, struct stdio *stdio)
{
    unsigned envc = 0;

    stdio->fds[0] = make_strings(process->sandbox, wish, cwd, &envc);
    if (stdio->fds[0] >= 0)
        return sandbox_order_spawn(process->sandbox, 1 + (int)json_array_size(wish->args), envc, stdio->fds, on_spawned,
                                   process);
    for (int i = 0; i < CONTROL_FDS_MAX; i++) {
        if (stdio->fds[i] >= 0)
            close(stdio->fds[i]);
    }
    return false;
}

struct process *process_start(struct event_base *base, struct sandbox *sandbox, const struct process_wish *wish,
                              const struct process_listener *listener, void *arg)
{
    struct stdio stdio = {.fds = {-1, -1, -1, -1}};
    char *cwd = process_resolve_path(wish->cwd);
    struct process *process = cwd == NULL ? NULL : process_new(sandbox, wish, cwd);
    bool ordered = false;

    if (process != NULL && make_stdio(process, wish->has_stdin, &stdio) && make_events(process, base, wish))
        ordered = order_spawn(process, wish, cwd, &stdio);
    free(cwd);
    if (!ordered) {
        if (process != NULL)
            process_free(process);
        return NULL;
    }
    process->listener = listener;
    process->arg = arg;
    LIST_INSERT_HEAD(&sandbox->processes, process, next);
    sandbox_watch_add(sandbox, &process->watch);
    return process;
}

/* --- from outside --------------------------------------------------------------------------------- */

void process_leave(struct process *process)
{
    process->listener = NULL;
    process_resume(process);
}

void process_pause(struct process *process)
{
    for (int i = 0; i < PROCESS_OUTPUTS; i++) {
        if (process->readable[i] != NULL)
            event_del(process->readable[i]);
    }
}

void process_resume(struct process *process)
{
    if (process->state == PROCESS_SPAWNING)
        return;
    for (int i = 0; i < PROCESS_OUTPUTS; i++) {
        if (process->readable[i] != NULL)
            event_add(process->readable[i], NULL);
    }
}

struct process *process_find(struct sandbox *sandbox, pid_t pid, const char *tag)
{
    struct process *process;

    for (process = LIST_FIRST(&sandbox->processes); process != NULL; process = LIST_NEXT(process, next)) {
        if (process->state != PROCESS_RUNNING)
            continue;
        if (tag == NULL ? process->pid == pid : process->tag != NULL && strcmp(process->tag, tag) == 0)
            return process;
    }
    return NULL;
}

void process_signal(struct process *process, int signal_number)
{
    if (signal_number == SIGKILL || signal_number == SIGTERM)
        process->abandoned = true;
    sandbox_order_signal(process->sandbox, process->pid, signal_number);
}

json_t *process_list(struct sandbox *sandbox)
{
    json_t *list = json_array();
    struct process *process;

    for (process = LIST_FIRST(&sandbox->processes); process != NULL; process = LIST_NEXT(process, next)) {
        json_t *entry;

        if (process->state != PROCESS_RUNNING)
            continue;
        entry = json_pack("{s:O, s:i}", "config", process->config, "pid", (int)process->pid);
        if (process->tag != NULL)
            json_object_set_new(entry, "tag", json_string(process->tag));
        json_array_append_new(list, entry);
    }
    return list;
}
