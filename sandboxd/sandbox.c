#include "sandboxd/sandbox_internal.h"

#include "common/clock.h"
#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS 10000

/* --- the end -------------------------------------------------------------------------------------- */

void sandbox_free(struct sandbox *sandbox)
{
    struct sandbox_private *own = sandbox->private;

    if (own->init_pidfd >= 0)
        close(own->init_pidfd);
    channel_free(own->channel);
    if (own->timer != NULL)
        event_free(own->timer);
    if (own->errors != NULL)
        event_free(own->errors);
    if (own->errors_fd >= 0)
        close(own->errors_fd);
    json_decref(sandbox->metadata);
    json_decref(sandbox->envs);
    json_decref(sandbox->network);
    egress_free(sandbox->egress);
    free(sandbox->template_name);
    free(own);
    free(sandbox);
}

static void tell_watches(struct sandbox_private *own)
{
    struct sandbox_watch *watch;

    while ((watch = LIST_FIRST(&own->watches)) != NULL) {
        LIST_REMOVE(watch, next);
        watch->ended(watch);
    }
}

/*
 * Kills all processes. Init first, by its pidfd: bwrap then reaps it, which the kernel allows only when the whole pid
 * namespace is empty, and ends. Before init answered, bwrap itself: its child dies with it (--die-with-parent), or at
 * the latest when it finds the control socket closed.
 */
static void kill_processes(struct sandbox_private *own)
{
    if (own->init_pidfd < 0 || pidfd_send_signal(own->init_pidfd, SIGKILL, NULL, 0) < 0)
        kill(own->bwrap_pid, SIGKILL);
}

/* Remembers who wants to hear of the end. */
static void add_waiter(struct sandbox_private *own, void (*ended)(void *arg), void *arg)
{
    struct end_waiter *waiter = ended == NULL ? NULL : malloc(sizeof *waiter);

    if (ended == NULL)
        return;
    if (waiter == NULL)
        log_panic("out of memory");
    *waiter = (struct end_waiter){.ended = ended, .arg = arg};
    LIST_INSERT_HEAD(&own->waiters, waiter, next);
}

void sandbox_end(struct sandbox *sandbox, const char *why, void (*ended)(void *arg), void *arg)
{
    struct sandbox_private *own = sandbox->private;

    add_waiter(own, ended, arg);
    if (sandbox->state == SANDBOX_ENDING)
        return;
    log_info("sandbox %s ends: %s", sandbox->id, why);
    if (sandbox->state == SANDBOX_RUNNING || sandbox->state == SANDBOX_PAUSED) {
        LIST_REMOVE(sandbox, next);
        LIST_INSERT_HEAD(&sandbox->table->unlisted, sandbox, next);
    }
    sandbox->state = SANDBOX_ENDING;
    sandbox->table->count--;
    evtimer_del(own->timer);
    tell_watches(own);
    sandbox_orders_forget(own);
    channel_close(own->channel);
    kill_processes(own);
}

/* Keeps what bwrap says while it starts, as the reason if it fails. */
static void on_errors(evutil_socket_t fd, short what, void *arg)
{
    struct sandbox_private *own = arg;
    size_t room = sizeof own->errors_text - 1 - own->errors_bytes;
    ssize_t got;

    (void)what;
    if (room == 0 || (got = read(fd, own->errors_text + own->errors_bytes, room)) == 0) {
        event_del(own->errors);
        return;
    }
    if (got < 0)
        return;
    own->errors_bytes += (size_t)got;
    own->errors_text[own->errors_bytes] = '\0';
    /* One line suits a log and an error message. */
    own->errors_text[strcspn(own->errors_text, "\n")] = '\0';
    own->errors_bytes = strlen(own->errors_text);
}

void sandbox_tell_ended(struct sandbox *sandbox)
{
    struct sandbox_private *own = sandbox->private;
    struct end_waiter *waiter;

    /* What bwrap said last may still lie in the pipe. */
    on_errors(own->errors_fd, EV_READ, own);
    if (own->ready != NULL)
        own->ready(NULL, own->errors_bytes > 0 ? own->errors_text : "it ended while it started", own->ready_arg);
    while ((waiter = LIST_FIRST(&own->waiters)) != NULL) {
        LIST_REMOVE(waiter, next);
        waiter->ended(waiter->arg);
        free(waiter);
    }
}

/* --- the start ------------------------------------------------------------------------------------ */

/* Fills text with random characters of the alphabet. */
static void random_text(char *text, size_t length, const char *alphabet, size_t alphabet_length)
{
    size_t filled = 0;

    while (filled < length) {
        unsigned char byte;

        if (getrandom(&byte, 1, 0) != 1)
            log_panic("getrandom: %s", strerror(errno));
        /* Only whole multiples of the alphabet, so that all characters are equally likely. */
        if (byte < 256 - 256 % alphabet_length)
            text[filled++] = alphabet[byte % alphabet_length];
    }
    text[length] = '\0';
}

static void make_names(struct sandbox *sandbox, bool secure)
{
    sandbox->id[0] = 'i';
    random_text(sandbox->id + 1, SANDBOX_ID_BYTES - 1, "abcdefghijklmnopqrstuvwxyz0123456789", 36);
    if (secure)
        random_text(sandbox->token, SANDBOX_TOKEN_BYTES, "0123456789abcdef", 16);
}

static void start_timer(struct sandbox *sandbox, int64_t ms)
{
    struct timeval delay = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    if (evtimer_add(sandbox->private->timer, &delay) < 0)
        log_panic("out of memory");
}

void sandbox_set_lifetime(struct sandbox *sandbox, int timeout_s)
{
    int64_t lifetime_ms = (int64_t)timeout_s * 1000;

    gettimeofday(&sandbox->end_at, NULL);
    sandbox->end_at.tv_sec += timeout_s;
    sandbox->private->expires_ms = monotonic_ms() + lifetime_ms + 1;
    start_timer(sandbox, lifetime_ms);
}

/* Init answered: the sandbox runs. */
static void on_hello(struct sandbox *sandbox, pid_t init_pid)
{
    struct sandbox_private *own = sandbox->private;
    void (*ready)(struct sandbox * sandbox, const char *reason, void *arg) = own->ready;

    if (sandbox->state != SANDBOX_STARTING)
        return;
    own->init_pidfd = pidfd_open(init_pid, 0);
    if (own->init_pidfd < 0) {
        log_warn("sandbox %s: pidfd of its init: %s", sandbox->id, strerror(errno));
        sandbox_end(sandbox, "init cannot be watched", NULL, NULL);
        return;
    }
    event_free(own->errors);
    own->errors = NULL;
    close(own->errors_fd);
    own->errors_fd = -1;
    LIST_REMOVE(sandbox, next);
    LIST_INSERT_HEAD(sandbox_bucket(sandbox->table, sandbox->id), sandbox, next);
    sandbox->state = SANDBOX_RUNNING;
    gettimeofday(&sandbox->started_at, NULL);
    sandbox_set_lifetime(sandbox, sandbox->timeout_s);
    own->ready = NULL;
    ready(sandbox, NULL, own->ready_arg);
}

/* A connection was made inside. */
static void on_accepted(struct sandbox *sandbox, struct control_message *notice)
{
    const struct sandbox_hooks *hooks = sandbox->table->hooks;

    if (notice->fd_count != 1 || notice->header.tag > sandbox->table->network->allowed.count)
        return;
    hooks->accepted(sandbox, notice->header.tag, notice->fds[0], hooks->arg);
    notice->fds[0] = -1;
}

static void on_notice(void *arg, struct control_message *notice)
{
    struct sandbox *sandbox = arg;

    switch (notice->header.kind) {
    case CONTROL_HELLO:
        on_hello(sandbox, notice->sender);
        break;
    case CONTROL_SPAWNED:
    case CONTROL_OPENED:
    case CONTROL_FROZEN:
        sandbox_orders_answer(sandbox, notice);
        break;
    case CONTROL_EXITED:
        sandbox->table->hooks->exited(sandbox, notice->header.value, (int)notice->header.flags);
        break;
    case CONTROL_ACCEPTED:
        on_accepted(sandbox, notice);
        break;
    case CONTROL_LISTEN_FAILED:
        log_warn("sandbox %s: listener %u inside: %s", sandbox->id, notice->header.tag, strerror(notice->header.value));
        break;
    default: /* the sandbox's fault, not ours */
        log_warn("sandbox %s: unknown notice %u", sandbox->id, notice->header.kind);
    }
}

static void on_broken(void *arg, const char *reason)
{
    sandbox_end(arg, reason, NULL, NULL);
}

static const struct channel_callbacks channel_callbacks = {.notice = on_notice, .broken = on_broken};

/*
 * libevent counts from the beginning of the turn of the loop in which a timer was set, on a clock that goes by ticks:
 * its call may come early, and nobody's sandbox may.
 */
static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct sandbox *sandbox = arg;
    int64_t rest_ms = sandbox->private->expires_ms - monotonic_ms();

    (void)fd;
    (void)what;
    if (sandbox->state == SANDBOX_RUNNING && rest_ms > 0) {
        start_timer(sandbox, rest_ms);
        return;
    }
    if (sandbox->state == SANDBOX_RUNNING && sandbox->auto_pause && sandbox_pause(sandbox, NULL, NULL))
        return;
    sandbox_end(sandbox, sandbox->state == SANDBOX_STARTING ? "init did not answer" : "end of life", NULL, NULL);
}

/* Allocates a sandbox in state STARTING; NULL when memory is out. */
static struct sandbox *sandbox_new(struct sandbox_table *table, const struct sandbox_wish *wish)
{
    struct sandbox *sandbox = calloc(1, sizeof *sandbox);
    struct sandbox_private *own = calloc(1, sizeof *own);
    char error[EGRESS_ERROR_MAX_BYTES];

    if (sandbox == NULL || own == NULL) {
        free(sandbox);
        free(own);
        return NULL;
    }
    own->init_pidfd = -1;
    own->errors_fd = -1;
    sandbox->timeout_s = wish->timeout_s;
    sandbox->auto_pause = wish->auto_pause;
    sandbox->auto_resume = wish->auto_resume;
    sandbox->private = own;
    sandbox->table = table;
    sandbox->state = SANDBOX_STARTING;
    sandbox->template_name = strdup(wish->template_name);
    sandbox->metadata = wish->metadata == NULL ? NULL : json_deep_copy(wish->metadata);
    sandbox->envs = wish->envs == NULL ? json_object() : json_deep_copy(wish->envs);
    sandbox->network = wish->network == NULL ? NULL : json_deep_copy(wish->network);
    sandbox->egress = egress_new(wish->network, error);
    sandbox->has_internet = table->network->mode == NETWORK_INTERNET && !wish->without_internet;
    own->timer = evtimer_new(table->base, on_timer, sandbox);
    make_names(sandbox, wish->secure);
    if (sandbox->template_name == NULL || sandbox->envs == NULL || sandbox->egress == NULL || own->timer == NULL) {
        sandbox_free(sandbox);
        return NULL;
    }
    return sandbox;
}

/* Attaches a started bwrap to its sandbox. A failure here is one of memory: the process cannot go on without. */
static void attach(struct sandbox *sandbox, const struct jail_process *process)
{
    struct sandbox_private *own = sandbox->private;

    own->bwrap_pid = process->pid;
    own->errors_fd = process->stderr_fd;
    sandbox->slot = process->slot;
    own->channel = channel_new(sandbox->table->base, process->control_fd, &channel_callbacks, sandbox);
    own->errors = event_new(sandbox->table->base, process->stderr_fd, EV_READ | EV_PERSIST, on_errors, own);
    if (own->channel == NULL || own->errors == NULL || event_add(own->errors, NULL) < 0)
        log_panic("out of memory");
    start_timer(sandbox, START_TIMEOUT_MS);
    LIST_INSERT_HEAD(&sandbox->table->unlisted, sandbox, next);
    sandbox->table->count++;
}

/* The environment that every command of this sandbox gets after the client's own globals. */
static void add_global_envs(struct sandbox *sandbox)
{
    json_object_set_new(sandbox->envs, "E2B_SANDBOX", json_string("true"));
    json_object_set_new(sandbox->envs, "E2B_SANDBOX_ID", json_string(sandbox->id));
    json_object_set_new(sandbox->envs, "E2B_TEMPLATE_ID", json_string(sandbox->template_name));
}

bool sandbox_start(struct sandbox_table *table, const struct sandbox_wish *wish,
                   void (*ready)(struct sandbox *sandbox, const char *reason, void *arg), void *arg,
                   char error[static JAIL_ERROR_MAX_BYTES])
{
    struct control_message hello = {.header = {.kind = CONTROL_HELLO}};
    struct sandbox *sandbox = sandbox_new(table, wish);
    struct jail_process process;

    if (sandbox == NULL) {
        strcpy(error, "out of memory");
        return false;
    }
    if (table->all_ended != NULL) {
        strcpy(error, "sandboxd is ending");
        sandbox_free(sandbox);
        return false;
    }
    if (!jail_start(table->jail, wish->template_folder, &process, error)) {
        sandbox_free(sandbox);
        return false;
    }
    add_global_envs(sandbox);
    attach(sandbox, &process);
    sandbox->private->ready = ready;
    sandbox->private->ready_arg = arg;
    sandbox_order_listeners(sandbox);
    channel_send(sandbox->private->channel, &hello);
    return true;
}

/* --- what hangs on it ----------------------------------------------------------------------------- */

void sandbox_watch_add(struct sandbox *sandbox, struct sandbox_watch *watch)
{
    LIST_INSERT_HEAD(&sandbox->private->watches, watch, next);
}

void sandbox_watch_remove(struct sandbox_watch *watch)
{
    LIST_REMOVE(watch, next);
}

void sandbox_give(const struct sandbox *sandbox, int fd)
{
    jail_give(sandbox->table->jail, sandbox->slot, fd);
}
