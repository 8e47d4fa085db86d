#include "master/runtime.h"

#include "common/log.h"
#include "common/scoreboard.h"
#include "master/child.h"
#include "master/runtime_exec.h"
#include "master/runtime_socket.h"
#include "master/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define START_PATIENCE_MS 15000
#define STOP_PATIENCE_MS  10000

struct runtime {
    enum runtime_state state;
    const struct settings *settings;
    struct runtime_socket socket;
    int owner_pipe[2]; /* read end for sandboxd, write end for us and the workers */
    int ready_fd;      /* -1: it has said ready, or does not run */
    pid_t pid;         /* 0: does not run */
    int64_t started_ms;
    int64_t deadline_ms; /* of the start or the stop; -1: none */
    struct throttle throttle;
};

/* Starts sandboxd. False after a log line. */
static bool start(struct runtime *runtime)
{
    static const int ignored[] = {0};
    int ready[2];

    if (pipe2(ready, O_CLOEXEC | O_NONBLOCK) < 0) {
        log_error("cannot start sandboxd: %s", strerror(errno));
        return false;
    }
    runtime->pid = child_fork(ignored);
    if (runtime->pid == 0)
        runtime_exec(runtime->settings, runtime->socket.fd, ready[1], runtime->owner_pipe[0]);
    close(ready[1]);
    if (runtime->pid < 0) {
        log_error("cannot start sandboxd: %s", strerror(errno));
        runtime->pid = 0;
        close(ready[0]);
        return false;
    }
    runtime->ready_fd = ready[0];
    runtime->started_ms = monotonic_ms();
    runtime->deadline_ms = runtime->started_ms + START_PATIENCE_MS;
    return true;
}

struct runtime *runtime_new(const struct settings *settings)
{
    struct runtime *runtime = calloc(1, sizeof *runtime);

    if (runtime == NULL)
        return NULL;
    *runtime = (struct runtime){.state = RUNTIME_STARTING,
                                .settings = settings,
                                .socket = {.fd = -1},
                                .owner_pipe = {-1, -1},
                                .ready_fd = -1,
                                .deadline_ms = -1};
    if (!runtime_socket_open(&runtime->socket, settings->local_socket))
        goto failed;
    if (pipe2(runtime->owner_pipe, O_CLOEXEC) < 0) {
        log_error("cannot make a pipe for sandboxd: %s", strerror(errno));
        goto failed;
    }
    if (start(runtime))
        return runtime;

failed:
    runtime_free(runtime);
    return NULL;
}

static void close_ready(struct runtime *runtime)
{
    if (runtime->ready_fd >= 0)
        close(runtime->ready_fd);
    runtime->ready_fd = -1;
}

void runtime_free(struct runtime *runtime)
{
    if (runtime == NULL)
        return;
    close_ready(runtime);
    runtime_socket_close(&runtime->socket);
    for (size_t i = 0; i < 2; i++) {
        if (runtime->owner_pipe[i] >= 0)
            close(runtime->owner_pipe[i]);
    }
    free(runtime);
}

enum runtime_state runtime_state(const struct runtime *runtime)
{
    return runtime->state;
}

const char *runtime_socket_path(const struct runtime *runtime)
{
    return runtime->socket.path;
}

int runtime_owner_fd(const struct runtime *runtime)
{
    return runtime->owner_pipe[1];
}

int runtime_ready_fd(const struct runtime *runtime)
{
    return runtime->ready_fd;
}

/* One newline means ready. End of file without it means that it is about to exit: its exit tells the rest. */
void runtime_readable(struct runtime *runtime)
{
    char byte;
    ssize_t n = read(runtime->ready_fd, &byte, 1);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    close_ready(runtime);
    if (n <= 0 || runtime->state == RUNTIME_STOPPING)
        return;
    runtime->deadline_ms = -1;
    runtime->state = RUNTIME_SERVING;
    log_info("sandboxd (pid %d) serves on %s", (int)runtime->pid, runtime->socket.path);
}

bool runtime_reaped(struct runtime *runtime, pid_t pid, int status, int64_t now_ms)
{
    char how[CHILD_EXIT_TEXT_BYTES];

    if (runtime->pid == 0 || pid != runtime->pid)
        return false;
    child_describe_exit(status, how);
    runtime->pid = 0;
    runtime->deadline_ms = -1;
    close_ready(runtime);
    if (runtime->state == RUNTIME_STOPPING) {
        log_info("sandboxd (pid %d) ended: %s", (int)pid, how);
        runtime->state = RUNTIME_GONE;
    } else if (runtime->state == RUNTIME_STARTING) {
        log_error("sandboxd (pid %d) could not start: %s", (int)pid, how);
        runtime->state = RUNTIME_FAILED;
    } else {
        throttle_note_death(&runtime->throttle, now_ms, now_ms - runtime->started_ms, false);
        log_error("sandboxd (pid %d) died: %s; its sandboxes are lost, it starts again in %lld s", (int)pid, how,
                  (long long)(runtime->throttle.not_before_ms - now_ms) / 1000);
    }
    return true;
}

/* It outlived its patience. */
static void kill_late(struct runtime *runtime)
{
    log_error("sandboxd (pid %d) %s: sending SIGKILL", (int)runtime->pid,
              runtime->state == RUNTIME_STOPPING ? "does not end" : "is not ready in time");
    runtime->deadline_ms = -1;
    kill(runtime->pid, SIGKILL);
}

void runtime_tick(struct runtime *runtime, int64_t now_ms)
{
    if (runtime->pid != 0 && runtime->deadline_ms >= 0 && now_ms >= runtime->deadline_ms)
        kill_late(runtime);
    if (runtime->pid == 0 && runtime->state == RUNTIME_SERVING && now_ms >= runtime->throttle.not_before_ms &&
        !start(runtime))
        throttle_note_death(&runtime->throttle, now_ms, 0, false);
}

int64_t runtime_deadline_ms(const struct runtime *runtime)
{
    if (runtime->pid == 0 && runtime->state == RUNTIME_SERVING)
        return runtime->throttle.not_before_ms;
    return runtime->deadline_ms;
}

void runtime_use_settings(struct runtime *runtime, const struct settings *settings)
{
    runtime->settings = settings;
}

void runtime_stop(struct runtime *runtime, int64_t now_ms)
{
    if (runtime->state == RUNTIME_STOPPING || runtime->state == RUNTIME_GONE)
        return;
    if (runtime->pid == 0) {
        runtime->state = RUNTIME_GONE;
        return;
    }
    runtime->state = RUNTIME_STOPPING;
    runtime->deadline_ms = now_ms + STOP_PATIENCE_MS;
    kill(runtime->pid, SIGTERM);
}
