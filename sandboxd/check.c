#include "sandboxd/check.h"

#include "sandboxd/process.h"

#include <stdio.h>
#include <string.h>

#define CHECK_TIMEOUT_S 10

/* One check on its way. */
struct check {
    struct event_base *base;
    struct sandbox_table *sandboxes;
    struct process_subscriber subscriber;
    bool passed;
    char reason[JAIL_ERROR_MAX_BYTES];
};

static void stop_loop(void *arg)
{
    struct check *check = arg;

    event_base_loopbreak(check->base);
}

static void end_sandbox(evutil_socket_t fd, short what, void *arg)
{
    struct check *check = arg;

    (void)fd;
    (void)what;
    sandbox_table_end_all(check->sandboxes, stop_loop, check);
}

/* Keeps the reason, if any, and ends the sandbox from the loop, which stops when it is gone. */
static void finish(struct check *check, const char *reason)
{
    const struct timeval now = {0};

    check->passed = reason == NULL;
    if (reason != NULL)
        snprintf(check->reason, sizeof check->reason, "%s", reason);
    if (event_base_once(check->base, -1, EV_TIMEOUT, end_sandbox, check, &now) < 0)
        stop_loop(check);
}

static void on_started(void *arg, pid_t pid)
{
    (void)arg;
    (void)pid;
}

static void on_output(void *arg, enum process_output output, const char *bytes, size_t length)
{
    (void)arg;
    (void)output;
    (void)bytes;
    (void)length;
}

static void on_silent(void *arg)
{
    (void)arg;
}

static void on_ended(void *arg, int wait_status)
{
    char status[PROCESS_STATUS_MAX_BYTES];

    finish(arg, wait_status == 0 ? NULL : process_status_text(wait_status, status));
}

static void on_failed(void *arg, enum rpc_code code, const char *message)
{
    (void)code;
    finish(arg, message);
}

static const struct process_listener listener = {
    .started = on_started, .output = on_output, .silent = on_silent, .ended = on_ended, .failed = on_failed};

static void on_ready(struct sandbox *sandbox, const char *reason, void *arg)
{
    const struct process_wish wish = {.cmd = "true"};
    struct check *check = arg;

    check->subscriber = (struct process_subscriber){.listener = &listener, .arg = check};
    if (sandbox == NULL)
        finish(check, reason);
    else if (!process_start(check->base, sandbox, &wish, &check->subscriber))
        finish(check, "the command could not be started");
}

bool check_machine(struct event_base *base, struct sandbox_table *sandboxes)
{
    const struct sandbox_wish wish = {.template_name = "base", .timeout_s = CHECK_TIMEOUT_S};
    struct check check = {.base = base, .sandboxes = sandboxes, .reason = "no answer in time"};
    const char *advice;

    if (sandbox_start(sandboxes, &wish, on_ready, &check, check.reason)) {
        const struct timeval limit = {.tv_sec = CHECK_TIMEOUT_S + 1};

        event_base_loopexit(base, &limit);
        event_base_dispatch(base);
    }
    if (check.passed) {
        printf("sandboxd: this machine can run sandboxes\n");
        return true;
    }
    advice = jail_advice();
    fprintf(stderr, "sandboxd: this machine cannot run sandboxes: %s\n", check.reason);
    if (advice != NULL)
        fprintf(stderr, "sandboxd: %s\n", advice);
    return false;
}
