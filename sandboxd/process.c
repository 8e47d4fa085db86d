#include "sandboxd/process_internal.h"

#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After the exit of a terminal's process: so long nothing must come out of it. The kernel has hung it up, so nobody
 * writes to it any more, but a program left behind may keep it open; and what was written may still be on its way to
 * us. */
#define TERMINAL_REST_MS 100

/* After each read of output that nobody listens to: at most 6 MiB a second and process. */
#define UNHEARD_REST_MS 5

/* --- its end -------------------------------------------------------------------------------------- */

static void close_output(struct process *process, enum process_output output)
{
    if (process->readable[output] != NULL)
        event_free(process->readable[output]);
    process->readable[output] = NULL;
    if (process->fds[output] >= 0)
        close(process->fds[output]);
    process->fds[output] = -1;
}

/* Everything but the memory of the exit. */
static void release(struct process *process)
{
    for (int i = 0; i < PROCESS_OUTPUTS; i++)
        close_output(process, (enum process_output)i);
    if (process->rest != NULL)
        event_free(process->rest);
    process->rest = NULL;
    json_decref(process->config);
    process->config = NULL;
}

void process_free(struct process *process)
{
    release(process);
    process_input_drop(process, NULL);
    if (process->timer != NULL)
        event_free(process->timer);
    free(process->tag);
    free(process);
}

/* Takes the first subscriber off; NULL when there is none. */
static struct process_subscriber *pop_subscriber(struct process *process)
{
    struct process_subscriber *subscriber = LIST_FIRST(&process->subscribers);

    if (subscriber != NULL) {
        LIST_REMOVE(subscriber, next);
        subscriber->process = NULL;
    }
    return subscriber;
}

/* Takes it off its sandbox: from here on only its owner on the stack knows it. */
static void process_detach(struct process *process)
{
    LIST_REMOVE(process, next);
    sandbox_watch_remove(&process->watch);
}

void process_sandbox_ended(struct sandbox_watch *watch)
{
    struct process *process = (struct process *)((char *)watch - offsetof(struct process, watch));

    LIST_REMOVE(process, next);
    while (pop_subscriber(process) != NULL) {
    }
    process_free(process);
}

void process_fail(struct process *process, enum rpc_code code, const char *message)
{
    struct process_subscriber *subscriber;

    process_detach(process);
    while ((subscriber = pop_subscriber(process)) != NULL)
        subscriber->listener->failed(subscriber->arg, code, message);
    process_free(process);
}

/* Forgets the oldest exit when there are too many. They stand in the order of their ends, newest first. */
static void bound_kept(struct sandbox *sandbox)
{
    struct process *process, *oldest = NULL;
    unsigned kept = 0;

    LIST_FOREACH(process, &sandbox->processes, next)
    {
        if (process->state == PROCESS_ENDED) {
            kept++;
            oldest = process;
        }
    }
    if (kept > PROCESS_KEPT_MAX) {
        process_detach(oldest);
        process_free(oldest);
    }
}

/* Tells the end, and keeps the exit for a while. */
static void process_end(struct process *process)
{
    const struct timeval kept = {.tv_sec = PROCESS_KEPT_S};
    struct process_subscriber *subscriber;

    process->state = PROCESS_ENDED;
    LIST_REMOVE(process, next);
    LIST_INSERT_HEAD(&process->sandbox->processes, process, next);
    release(process);
    process_input_drop(process, "file already closed");
    if (evtimer_add(process->timer, &kept) < 0)
        log_panic("out of memory");
    while ((subscriber = pop_subscriber(process)) != NULL)
        subscriber->listener->ended(subscriber->arg, process->wait_status);
    bound_kept(process->sandbox);
}

/* Whether a subscriber cannot keep up. */
static bool is_stalled(const struct process *process)
{
    const struct process_subscriber *subscriber;

    LIST_FOREACH(subscriber, &process->subscribers, next)
    {
        if (subscriber->slow)
            return true;
    }
    return false;
}

/* Waits for the last output of a terminal whose process exited. */
static void await_rest(struct process *process)
{
    const struct timeval rest = {.tv_usec = TERMINAL_REST_MS * 1000};

    if (evtimer_add(process->timer, &rest) < 0)
        log_panic("out of memory");
}

static bool is_silent(const struct process *process)
{
    for (int i = 0; i < PROCESS_OUTPUTS; i++) {
        if (process->fds[i] >= 0)
            return false;
    }
    return true;
}

/* Ends it if there is nothing more to come. */
static void check_ended(struct process *process)
{
    struct process_subscriber *subscriber;
    bool silent = is_silent(process);

    if (process->state == PROCESS_EXITED && (silent || process->abandoned)) {
        process_end(process);
    } else if (process->state == PROCESS_EXITED && process->has_pty) {
        await_rest(process);
    } else if (silent) {
        LIST_FOREACH(subscriber, &process->subscribers, next)
        {
            subscriber->listener->silent(subscriber->arg);
        }
    }
}

/* --- its output ----------------------------------------------------------------------------------- */

static void stop_reading(struct process *process)
{
    for (int i = 0; i < PROCESS_OUTPUTS; i++) {
        if (process->readable[i] != NULL)
            event_del(process->readable[i]);
    }
}

/* Reads again, unless a subscriber is slow. */
static void go_on_reading(struct process *process)
{
    if (process->state == PROCESS_SPAWNING || is_stalled(process))
        return;
    for (int i = 0; i < PROCESS_OUTPUTS; i++) {
        if (process->readable[i] != NULL)
            event_add(process->readable[i], NULL);
    }
}

static void on_rested(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    go_on_reading(arg);
}

/* Reads nothing for a moment: who prints at full speed to nobody must not keep us, and so a core, busy for ever. */
static void take_rest(struct process *process)
{
    const struct timeval pause = {.tv_usec = UNHEARD_REST_MS * 1000};

    if (process->rest == NULL)
        process->rest = evtimer_new(process->base, on_rested, process);
    if (process->rest == NULL || evtimer_add(process->rest, &pause) < 0)
        log_panic("out of memory");
    stop_reading(process);
}

/* Tells every subscriber. What they are told may make them slow, never leave: only the loop takes them off. */
static void tell_output(struct process *process, enum process_output output, const char *bytes, size_t length)
{
    struct process_subscriber *subscriber;

    if (LIST_EMPTY(&process->subscribers))
        take_rest(process);
    LIST_FOREACH(subscriber, &process->subscribers, next)
    {
        subscriber->listener->output(subscriber->arg, output, bytes, length);
    }
}

/* Takes what there is, once; false when there is nothing now. At its end the process may be freed. */
static bool take_output(struct process *process, enum process_output output)
{
    char bytes[PROCESS_OUTPUT_MAX_BYTES];
    ssize_t got =
        read(process->fds[output], bytes, output == PROCESS_PTY ? PROCESS_OUTPUT_MAX_BYTES / 2 : sizeof bytes);

    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got > 0) {
        tell_output(process, output, bytes, (size_t)got);
        if (process->state == PROCESS_EXITED && process->has_pty)
            await_rest(process);
        return true;
    }
    /* The end; of a terminal EIO, once nobody inside has it open. */
    close_output(process, output);
    check_ended(process);
    return true;
}

static void on_stdout(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)take_output(arg, PROCESS_STDOUT);
}

static void on_stderr(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)take_output(arg, PROCESS_STDERR);
}

static void on_pty(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    (void)take_output(arg, PROCESS_PTY);
}

bool process_watch_output(struct process *process, enum process_output output)
{
    static const event_callback_fn callbacks[PROCESS_OUTPUTS] = {on_stdout, on_stderr, on_pty};

    process->readable[output] =
        event_new(process->base, process->fds[output], EV_READ | EV_PERSIST, callbacks[output], process);
    return process->readable[output] != NULL;
}

void process_began(struct process *process, pid_t pid)
{
    struct process_subscriber *subscriber;

    process->pid = pid;
    process->state = PROCESS_RUNNING;
    LIST_FOREACH(subscriber, &process->subscribers, next)
    {
        subscriber->listener->started(subscriber->arg, pid);
    }
    if (process->abandoned) /* its deadline passed before it had a pid */
        process_signal(process, SIGKILL);
    go_on_reading(process);
}

/* --- its exit and its time ----------------------------------------------------------------------- */

void process_on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct process *process = arg;

    (void)fd;
    (void)what;
    if (process->state == PROCESS_ENDED) {
        process_detach(process);
        process_free(process);
        return;
    }
    if (process->state == PROCESS_EXITED && process->has_pty) {
        if (is_stalled(process)) {
            await_rest(process);
            return;
        }
        /* A read looks where no wakeup was due yet. */
        if (take_output(process, PROCESS_PTY))
            return;
    }
    /* Connect-Timeout-Ms: the process, it alone, is killed. It counts from the start, whoever listens; the stream ends
     * by a timer of its own. */
    process->abandoned = true;
    if (process->state != PROCESS_SPAWNING)
        process_signal(process, SIGKILL);
}

void process_exited(struct sandbox *sandbox, pid_t pid, int wait_status)
{
    struct process *process;

    LIST_FOREACH(process, &sandbox->processes, next)
    {
        if (process->state == PROCESS_RUNNING && process->pid == pid)
            break;
    }
    if (process == NULL)
        return;
    process->state = PROCESS_EXITED;
    process->wait_status = wait_status;
    check_ended(process);
}

/* --- from outside --------------------------------------------------------------------------------- */

void process_join(struct process *process, struct process_subscriber *subscriber)
{
    subscriber->listener->started(subscriber->arg, process->pid);
    if (process->state == PROCESS_ENDED) {
        subscriber->listener->ended(subscriber->arg, process->wait_status);
        return;
    }
    subscriber->process = process;
    LIST_INSERT_HEAD(&process->subscribers, subscriber, next);
    if (is_silent(process))
        subscriber->listener->silent(subscriber->arg);
}

void process_leave(struct process_subscriber *subscriber)
{
    struct process *process = subscriber->process;

    if (process == NULL)
        return;
    LIST_REMOVE(subscriber, next);
    subscriber->process = NULL;
    go_on_reading(process);
}

void process_pause(struct process_subscriber *subscriber)
{
    if (subscriber->process == NULL)
        return;
    subscriber->slow = true;
    stop_reading(subscriber->process);
}

void process_resume(struct process_subscriber *subscriber)
{
    if (subscriber->process == NULL || !subscriber->slow)
        return;
    subscriber->slow = false;
    go_on_reading(subscriber->process);
}

/* Whether the selector of a request, a pid or a tag, means this process. */
static bool is_selected(const struct process *process, pid_t pid, const char *tag)
{
    if (process->state == PROCESS_SPAWNING)
        return false;
    return tag == NULL ? process->pid == pid : process->tag != NULL && strcmp(process->tag, tag) == 0;
}

struct process *process_find(struct sandbox *sandbox, pid_t pid, const char *tag)
{
    struct process *process;

    LIST_FOREACH(process, &sandbox->processes, next)
    {
        if (process->state != PROCESS_ENDED && is_selected(process, pid, tag))
            break;
    }
    return process;
}

struct process *process_find_kept(struct sandbox *sandbox, pid_t pid, const char *tag)
{
    struct process *process = process_find(sandbox, pid, tag);

    if (process != NULL)
        return process;
    LIST_FOREACH(process, &sandbox->processes, next)
    {
        if (is_selected(process, pid, tag))
            break;
    }
    return process;
}

pid_t process_pid(const struct process *process)
{
    return process->pid;
}

void process_signal(struct process *process, int signal_number)
{
    if (signal_number == SIGKILL || signal_number == SIGTERM)
        process->abandoned = true;
    if (process->state == PROCESS_RUNNING)
        sandbox_order_signal(process->sandbox, process->pid, signal_number);
    else /* only its output was still awaited */
        check_ended(process);
}

json_t *process_list(struct sandbox *sandbox)
{
    json_t *list = json_array();
    struct process *process;

    LIST_FOREACH(process, &sandbox->processes, next)
    {
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
