#include "master/runtime.h"

#include "common/clock.h"
#include "common/log.h"
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
    const struct settings *settings;
    struct runtime_handover is;
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
    runtime->is.pid = child_fork(ignored);
    if (runtime->is.pid == 0)
        runtime_exec(runtime->settings, runtime->is.socket.fd, ready[1], runtime->is.owner_pipe[0]);
    close(ready[1]);
    if (runtime->is.pid < 0) {
        log_error("cannot start sandboxd: %s", strerror(errno));
        runtime->is.pid = 0;
        close(ready[0]);
        return false;
    }
    runtime->is.ready_fd = ready[0];
    runtime->is.started_ms = monotonic_ms();
    runtime->is.deadline_ms = runtime->is.started_ms + START_PATIENCE_MS;
    return true;
}

struct runtime *runtime_new(const struct settings *settings, const struct privileges *privileges)
{
    struct runtime *runtime = calloc(1, sizeof *runtime);

    if (runtime == NULL)
        return NULL;
    runtime->settings = settings;
    runtime->is = RUNTIME_HANDOVER_NONE;
    runtime->is.state = RUNTIME_STARTING;
    runtime->is.deadline_ms = -1;
    if (!runtime_socket_open(&runtime->is.socket, settings->local_socket))
        goto failed;
    runtime_socket_give(&runtime->is.socket, privileges);
    if (pipe2(runtime->is.owner_pipe, O_CLOEXEC) < 0) {
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
    if (runtime->is.ready_fd >= 0)
        close(runtime->is.ready_fd);
    runtime->is.ready_fd = -1;
}

void runtime_free(struct runtime *runtime)
{
    if (runtime == NULL)
        return;
    close_ready(runtime);
    runtime_socket_close(&runtime->is.socket);
    for (size_t i = 0; i < 2; i++) {
        if (runtime->is.owner_pipe[i] >= 0)
            close(runtime->is.owner_pipe[i]);
    }
    free(runtime);
}

void runtime_describe(const struct runtime *runtime, struct runtime_handover *handover)
{
    *handover = runtime->is;
}

struct runtime *runtime_adopt(const struct settings *settings, const struct runtime_handover *handover)
{
    struct runtime *runtime = calloc(1, sizeof *runtime);

    if (runtime == NULL)
        return NULL;
    *runtime = (struct runtime){.settings = settings, .is = *handover};
    return runtime;
}

enum runtime_state runtime_state(const struct runtime *runtime)
{
    return runtime->is.state;
}

const char *runtime_socket_path(const struct runtime *runtime)
{
    return runtime->is.socket.path;
}

int runtime_owner_fd(const struct runtime *runtime)
{
    return runtime->is.owner_pipe[1];
}

int runtime_ready_fd(const struct runtime *runtime)
{
    return runtime->is.ready_fd;
}

/* One newline means ready. End of file without it means that it is about to exit: its exit tells the rest. */
void runtime_readable(struct runtime *runtime)
{
    char byte;
    ssize_t n = read(runtime->is.ready_fd, &byte, 1);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    close_ready(runtime);
    if (n <= 0 || runtime->is.state == RUNTIME_STOPPING)
        return;
    runtime->is.deadline_ms = -1;
    runtime->is.state = RUNTIME_SERVING;
    log_info("sandboxd (pid %d) serves on %s", (int)runtime->is.pid, runtime->is.socket.path);
}

bool runtime_reaped(struct runtime *runtime, pid_t pid, int status, int64_t now_ms)
{
    char how[CHILD_EXIT_TEXT_BYTES];

    if (runtime->is.pid == 0 || pid != runtime->is.pid)
        return false;
    child_describe_exit(status, how);
    runtime->is.pid = 0;
    runtime->is.deadline_ms = -1;
    close_ready(runtime);
    if (runtime->is.state == RUNTIME_STOPPING) {
        log_info("sandboxd (pid %d) ended: %s", (int)pid, how);
        runtime->is.state = RUNTIME_GONE;
    } else if (runtime->is.state == RUNTIME_STARTING) {
        log_error("sandboxd (pid %d) could not start: %s", (int)pid, how);
        runtime->is.state = RUNTIME_FAILED;
    } else {
        throttle_note_death(&runtime->is.throttle, now_ms, now_ms - runtime->is.started_ms, false);
        log_error("sandboxd (pid %d) died: %s; its sandboxes are lost, it starts again in %lld s", (int)pid, how,
                  (long long)(runtime->is.throttle.not_before_ms - now_ms) / 1000);
    }
    return true;
}

/* It outlived its patience. */
static void kill_late(struct runtime *runtime)
{
    log_error("sandboxd (pid %d) %s: sending SIGKILL", (int)runtime->is.pid,
              runtime->is.state == RUNTIME_STOPPING ? "does not end" : "is not ready in time");
    runtime->is.deadline_ms = -1;
    kill(runtime->is.pid, SIGKILL);
}

void runtime_tick(struct runtime *runtime, int64_t now_ms)
{
    if (runtime->is.pid != 0 && runtime->is.deadline_ms >= 0 && now_ms >= runtime->is.deadline_ms)
        kill_late(runtime);
    if (runtime->is.pid == 0 && runtime->is.state == RUNTIME_SERVING && now_ms >= runtime->is.throttle.not_before_ms &&
        !start(runtime))
        throttle_note_death(&runtime->is.throttle, now_ms, 0, false);
}

int64_t runtime_deadline_ms(const struct runtime *runtime)
{
    if (runtime->is.pid == 0 && runtime->is.state == RUNTIME_SERVING)
        return runtime->is.throttle.not_before_ms;
    return runtime->is.deadline_ms;
}

void runtime_use_settings(struct runtime *runtime, const struct settings *settings)
{
    runtime->settings = settings;
}

void runtime_stop(struct runtime *runtime, int64_t now_ms)
{
    if (runtime->is.state == RUNTIME_STOPPING || runtime->is.state == RUNTIME_GONE)
        return;
    if (runtime->is.pid == 0) {
        runtime->is.state = RUNTIME_GONE;
        return;
    }
    runtime->is.state = RUNTIME_STOPPING;
    runtime->is.deadline_ms = now_ms + STOP_PATIENCE_MS;
    kill(runtime->is.pid, SIGTERM);
}
