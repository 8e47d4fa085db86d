#include "sandboxd/sandbox.h"

#include "common/log.h"
#include "sandboxd/channel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_TIMEOUT_MS   10000
#define BUCKETS            256
#define PENDING_ORDERS_MAX 1024
#define PROXY_URL          "http://127.0.0.1:3128"
#define PROXY_EXCEPTIONS   "localhost,127.0.0.1,::1"

/* An order that waits for init's answer. */
struct pending {
    LIST_ENTRY(pending) next;
    uint32_t tag;
    enum control_kind kind; /* of the answer */
    sandbox_answer answer;
    void *arg;
};

/* Who waits for the end of a sandbox. */
struct end_waiter {
    LIST_ENTRY(end_waiter) next;
    void (*ended)(void *arg);
    void *arg;
};

LIST_HEAD(pending_list, pending);
LIST_HEAD(sandbox_watch_list, sandbox_watch);
LIST_HEAD(end_waiter_list, end_waiter);

/* What only this file touches. */
struct sandbox_private {
    pid_t bwrap_pid;
    int timeout_s;  /* the life it was asked to have, once it runs */
    int init_pidfd; /* -1 until init answered */
    struct channel *channel;
    struct event *timer;  /* start limit, then end of life */
    struct event *errors; /* bwrap's stderr until init answered */
    int errors_fd;
    size_t errors_bytes;
    char errors_text[JAIL_ERROR_MAX_BYTES];
    void (*ready)(struct sandbox *sandbox, const char *reason, void *arg);
    void *ready_arg;
    uint32_t last_tag;
    unsigned pending_count;
    struct pending_list pending;
    struct sandbox_watch_list watches;
    struct end_waiter_list waiters;
};

LIST_HEAD(sandbox_list, sandbox);

struct sandbox_table {
    struct event_base *base;
    struct jail *jail;
    const struct endpoint_list *allowed;
    const struct sandbox_hooks *hooks;
    struct sandbox_list running[BUCKETS];
    struct sandbox_list unlisted; /* STARTING and ENDING */
    void (*all_ended)(void *arg);
    void *all_ended_arg;
};

/* --- the table ------------------------------------------------------------------------------------ */

/* The bucket of an id; ids are random, so a few of their bytes are a hash. */
static struct sandbox_list *bucket_of(struct sandbox_table *table, const char *id)
{
    unsigned hash = 0;

    for (size_t i = 0; id[i] != '\0'; i++)
        hash = hash * 31 + (unsigned char)id[i];
    return &table->running[hash % BUCKETS];
}

struct sandbox_table *sandbox_table_new(struct event_base *base, struct jail *jail, const struct endpoint_list *allowed,
                                        const struct sandbox_hooks *hooks)
{
    struct sandbox_table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return NULL;
    table->base = base;
    table->jail = jail;
    table->allowed = allowed;
    table->hooks = hooks;
    LIST_INIT(&table->unlisted);
    for (size_t i = 0; i < BUCKETS; i++)
        LIST_INIT(&table->running[i]);
    return table;
}

void sandbox_table_free(struct sandbox_table *table)
{
    free(table);
}

struct sandbox *sandbox_find(struct sandbox_table *table, const char *id)
{
    struct sandbox *sandbox;

    LIST_FOREACH(sandbox, bucket_of(table, id), next)
    {
        if (strcmp(sandbox->id, id) == 0)
            return sandbox;
    }
    return NULL;
}

void sandbox_table_each(struct sandbox_table *table, void (*visit)(struct sandbox *sandbox, void *arg), void *arg)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct sandbox *sandbox = LIST_FIRST(&table->running[i]);

        while (sandbox != NULL) {
            struct sandbox *following = LIST_NEXT(sandbox, next);

            visit(sandbox, arg);
            sandbox = following;
        }
    }
}

/* Tells who waits for the end of all, once nothing is left. */
static void check_all_ended(struct sandbox_table *table)
{
    void (*all_ended)(void *arg) = table->all_ended;

    if (all_ended == NULL || !LIST_EMPTY(&table->unlisted))
        return;
    table->all_ended = NULL;
    all_ended(table->all_ended_arg);
}

static void end_one(struct sandbox *sandbox, void *arg)
{
    sandbox_end(sandbox, arg, NULL, NULL);
}

void sandbox_table_end_all(struct sandbox_table *table, void (*done)(void *arg), void *arg)
{
    struct sandbox *sandbox;

    table->all_ended = done;
    table->all_ended_arg = arg;
    sandbox_table_each(table, end_one, "shutdown");
    LIST_FOREACH(sandbox, &table->unlisted, next)
    sandbox_end(sandbox, "shutdown", NULL, NULL);
    check_all_ended(table);
}

/* --- the end -------------------------------------------------------------------------------------- */

/* Frees a sandbox of which nothing runs any more. */
static void sandbox_free(struct sandbox *sandbox)
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
    free(sandbox->template_name);
    free(own);
    free(sandbox);
}

/* Forgets the orders that wait: their owners have watches, and were told. */
static void drop_pending(struct sandbox_private *own)
{
    struct pending *pending;

    while ((pending = LIST_FIRST(&own->pending)) != NULL) {
        LIST_REMOVE(pending, next);
        free(pending);
    }
    own->pending_count = 0;
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
    if (sandbox->state == SANDBOX_RUNNING) {
        LIST_REMOVE(sandbox, next);
        LIST_INSERT_HEAD(&sandbox->table->unlisted, sandbox, next);
    }
    sandbox->state = SANDBOX_ENDING;
    evtimer_del(own->timer);
    tell_watches(own);
    drop_pending(own);
    channel_close(own->channel);
    kill_processes(own);
}

/* Tells the ones who waited: for the start, which then failed, and for the end. */
static void tell_ended(struct sandbox *sandbox)
{
    struct sandbox_private *own = sandbox->private;
    struct end_waiter *waiter;

    if (own->ready != NULL)
        own->ready(NULL, own->errors_bytes > 0 ? own->errors_text : "it ended while it started", own->ready_arg);
    while ((waiter = LIST_FIRST(&own->waiters)) != NULL) {
        LIST_REMOVE(waiter, next);
        waiter->ended(waiter->arg);
        free(waiter);
    }
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

void sandbox_table_reaped(struct sandbox_table *table, pid_t pid, int status)
{
    struct sandbox *sandbox;

    LIST_FOREACH(sandbox, &table->unlisted, next)
    {
        if (sandbox->private->bwrap_pid == pid)
            break;
    }
    for (size_t i = 0; i < BUCKETS && sandbox == NULL; i++) {
        LIST_FOREACH(sandbox, &table->running[i], next)
        {
            if (sandbox->private->bwrap_pid == pid)
                break;
        }
    }
    if (sandbox == NULL)
        return;
    on_errors(sandbox->private->errors_fd, EV_READ, sandbox->private);
    if (sandbox->state != SANDBOX_ENDING) {
        log_warn("sandbox %s: bwrap ended by itself, wait status 0x%x", sandbox->id, (unsigned)status);
        sandbox_end(sandbox, "bwrap ended", NULL, NULL);
    }
    LIST_REMOVE(sandbox, next);
    jail_release(table->jail, sandbox->slot);
    tell_ended(sandbox);
    sandbox_free(sandbox);
    check_all_ended(table);
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

/* Sends one order to listen. */
static void order_listen(struct sandbox *sandbox, unsigned listener, const void *address, socklen_t length)
{
    struct control_message order = {.header = {.kind = CONTROL_LISTEN, .tag = listener}, .payload_bytes = length};

    memcpy(order.payload, address, length);
    channel_send(sandbox->private->channel, &order);
}

/* Orders what makes the allowed endpoints reachable inside: a proxy, and a listener for each one on loopback. */
static void order_listeners(struct sandbox *sandbox)
{
    const struct endpoint_list *allowed = sandbox->table->allowed;
    struct sockaddr_in proxy = {
        .sin_family = AF_INET, .sin_port = htons(SANDBOX_PROXY_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (allowed->count > 0)
        order_listen(sandbox, SANDBOX_PROXY_LISTENER, &proxy, sizeof proxy);
    for (unsigned i = 0; i < allowed->count; i++) {
        struct sockaddr_storage address;
        socklen_t length = endpoint_loopback_address(&allowed->entries[i], &address);

        if (length != 0)
            order_listen(sandbox, i + 1, &address, length);
    }
}

/* Sets when the sandbox ends. */
static void set_lifetime(struct sandbox *sandbox, int timeout_s)
{
    struct timeval lifetime = {.tv_sec = timeout_s};

    gettimeofday(&sandbox->end_at, NULL);
    sandbox->end_at.tv_sec += timeout_s;
    if (evtimer_add(sandbox->private->timer, &lifetime) < 0)
        log_panic("out of memory");
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
    LIST_INSERT_HEAD(bucket_of(sandbox->table, sandbox->id), sandbox, next);
    sandbox->state = SANDBOX_RUNNING;
    gettimeofday(&sandbox->started_at, NULL);
    set_lifetime(sandbox, own->timeout_s);
    own->ready = NULL;
    ready(sandbox, NULL, own->ready_arg);
}

/* Gives the answer to the order that waits for it; an answer nobody waits for is dropped. */
static void on_answer(struct sandbox *sandbox, struct control_message *answer)
{
    struct pending *pending;

    LIST_FOREACH(pending, &sandbox->private->pending, next)
    {
        if (pending->tag == answer->header.tag && pending->kind == answer->header.kind)
            break;
    }
    if (pending == NULL)
        return;
    LIST_REMOVE(pending, next);
    sandbox->private->pending_count--;
    pending->answer(answer, pending->arg);
    free(pending);
}

/* A connection was made inside. */
static void on_accepted(struct sandbox *sandbox, struct control_message *notice)
{
    const struct sandbox_hooks *hooks = sandbox->table->hooks;

    if (notice->fd_count != 1 || notice->header.tag > sandbox->table->allowed->count)
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
        on_answer(sandbox, notice);
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

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct sandbox *sandbox = arg;

    (void)fd;
    (void)what;
    sandbox_end(sandbox, sandbox->state == SANDBOX_STARTING ? "init did not answer" : "end of life", NULL, NULL);
}

/* Allocates a sandbox in state STARTING; NULL when memory is out. */
static struct sandbox *sandbox_new(struct sandbox_table *table, const struct sandbox_wish *wish)
{
    struct sandbox *sandbox = calloc(1, sizeof *sandbox);
    struct sandbox_private *own = calloc(1, sizeof *own);

    if (sandbox == NULL || own == NULL) {
        free(sandbox);
        free(own);
        return NULL;
    }
    own->init_pidfd = -1;
    own->errors_fd = -1;
    own->timeout_s = wish->timeout_s;
    sandbox->private = own;
    sandbox->table = table;
    sandbox->state = SANDBOX_STARTING;
    sandbox->template_name = strdup(wish->template_name);
    sandbox->metadata = wish->metadata == NULL ? NULL : json_deep_copy(wish->metadata);
    sandbox->envs = wish->envs == NULL ? json_object() : json_deep_copy(wish->envs);
    own->timer = evtimer_new(table->base, on_timer, sandbox);
    make_names(sandbox, wish->secure);
    if (sandbox->template_name == NULL || sandbox->envs == NULL || own->timer == NULL) {
        sandbox_free(sandbox);
        return NULL;
    }
    return sandbox;
}

/* Attaches a started bwrap to its sandbox. A failure here is one of memory: the process cannot go on without. */
static void attach(struct sandbox *sandbox, const struct jail_process *process)
{
    struct sandbox_private *own = sandbox->private;
    struct timeval start_limit = {.tv_sec = START_TIMEOUT_MS / 1000};

    own->bwrap_pid = process->pid;
    own->errors_fd = process->stderr_fd;
    sandbox->slot = process->slot;
    own->channel = channel_new(sandbox->table->base, process->control_fd, &channel_callbacks, sandbox);
    own->errors = event_new(sandbox->table->base, process->stderr_fd, EV_READ | EV_PERSIST, on_errors, own);
    if (own->channel == NULL || own->errors == NULL || event_add(own->errors, NULL) < 0 ||
        evtimer_add(own->timer, &start_limit) < 0)
        log_panic("out of memory");
    LIST_INSERT_HEAD(&sandbox->table->unlisted, sandbox, next);
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
    if (!jail_start(table->jail, wish->node_modules, &process, error)) {
        sandbox_free(sandbox);
        return false;
    }
    add_global_envs(sandbox);
    attach(sandbox, &process);
    sandbox->private->ready = ready;
    sandbox->private->ready_arg = arg;
    order_listeners(sandbox);
    channel_send(sandbox->private->channel, &hello);
    return true;
}

void sandbox_set_timeout(struct sandbox *sandbox, int timeout_s)
{
    if (sandbox->state == SANDBOX_RUNNING)
        set_lifetime(sandbox, timeout_s);
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

int sandbox_add_proxy_envs(const struct sandbox *sandbox, json_t *envs)
{
    const struct endpoint_list *allowed = sandbox->table->allowed;
    struct sockaddr_storage address;

    for (size_t i = 0; i < allowed->count; i++) {
        json_t *proxy;

        /* A loopback endpoint is reached at its own address, without a proxy. */
        if (endpoint_loopback_address(&allowed->entries[i], &address) != 0)
            continue;
        proxy = json_pack("{s:s, s:s, s:s, s:s}", "HTTPS_PROXY", PROXY_URL, "https_proxy", PROXY_URL, "NO_PROXY",
                          PROXY_EXCEPTIONS, "no_proxy", PROXY_EXCEPTIONS);
        if (proxy == NULL || json_object_update(envs, proxy) < 0) {
            json_decref(proxy);
            return -1;
        }
        json_decref(proxy);
        return 0;
    }
    return 0;
}

/* Registers who gets the answer to the next order; its tag, or 0 when too many wait. */
static uint32_t expect_answer(struct sandbox *sandbox, enum control_kind kind, sandbox_answer answer, void *arg)
{
    struct sandbox_private *own = sandbox->private;
    struct pending *pending;

    if (sandbox->state != SANDBOX_RUNNING || own->pending_count == PENDING_ORDERS_MAX)
        return 0;
    pending = malloc(sizeof *pending);
    if (pending == NULL)
        return 0;
    if (++own->last_tag == 0)
        own->last_tag = 1;
    *pending = (struct pending){.tag = own->last_tag, .kind = kind, .answer = answer, .arg = arg};
    LIST_INSERT_HEAD(&own->pending, pending, next);
    own->pending_count++;
    return pending->tag;
}

bool sandbox_order_spawn(struct sandbox *sandbox, int argc, unsigned envc, const int fds[static CONTROL_FDS_MAX],
                         sandbox_answer answer, void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_SPAWN, .value = argc, .flags = envc},
                                    .fd_count = CONTROL_FDS_MAX};

    memcpy(order.fds, fds, sizeof order.fds);
    order.header.tag = expect_answer(sandbox, CONTROL_SPAWNED, answer, arg);
    if (order.header.tag == 0) {
        control_close_fds(&order);
        return false;
    }
    channel_send(sandbox->private->channel, &order);
    return true;
}

bool sandbox_order_open(struct sandbox *sandbox, const char *path, enum control_open_mode mode, sandbox_answer answer,
                        void *arg)
{
    struct control_message order = {.header = {.kind = CONTROL_OPEN, .flags = mode}, .payload_bytes = strlen(path)};

    if (order.payload_bytes >= CONTROL_PAYLOAD_MAX_BYTES)
        return false;
    order.header.tag = expect_answer(sandbox, CONTROL_OPENED, answer, arg);
    if (order.header.tag == 0)
        return false;
    memcpy(order.payload, path, order.payload_bytes);
    channel_send(sandbox->private->channel, &order);
    return true;
}

void sandbox_order_signal(struct sandbox *sandbox, pid_t pid, int signal_number)
{
    struct control_message order = {.header = {.kind = CONTROL_SIGNAL, .value = pid, .flags = (uint32_t)signal_number}};

    channel_send(sandbox->private->channel, &order);
}
