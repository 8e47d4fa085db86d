#include "worker/template_install.h"

#include "worker/agent_stream.h"
#include "worker/timer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INSTALL_TIMEOUT_MS 120000
#define STDERR_KEPT_BYTES  1024 /* of the end: the last line is told */
#define SDK_PACKAGE        "@anthropic-ai/claude-agent-sdk"
#define RUNNER_DIR         "/opt/agent-runner"

struct template_install {
    struct agent_stream *stream;
    struct event *timer;
    char tail[STDERR_KEPT_BYTES + 1];
    size_t tail_length;
    void (*on_installed)(void *context, const struct e2b_result *result);
    void *context;
};

void template_install_cancel(struct template_install *install)
{
    if (install == NULL)
        return;
    agent_stream_cancel(install->stream);
    if (install->timer != NULL)
        event_free(install->timer);
    free(install);
}

static void end(struct template_install *install, enum run_error error, const char *message)
{
    const struct e2b_result result = {.error = error, .message = message};

    install->on_installed(install->context, &result);
    template_install_cancel(install);
}

static void on_start(void *context, int64_t pid)
{
    (void)context;
    (void)pid;
}

/* Keeps the end of stderr. */
static void on_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    struct template_install *install = context;
    size_t over;

    if (!is_stderr)
        return;
    if (length > STDERR_KEPT_BYTES) {
        bytes += length - STDERR_KEPT_BYTES;
        length = STDERR_KEPT_BYTES;
    }
    over = install->tail_length + length > STDERR_KEPT_BYTES ? install->tail_length + length - STDERR_KEPT_BYTES : 0;
    memmove(install->tail, install->tail + over, install->tail_length - over);
    install->tail_length -= over;
    memcpy(install->tail + install->tail_length, bytes, length);
    install->tail_length += length;
    install->tail[install->tail_length] = '\0';
}

/* The last line of stderr that is not blank; "" when there is none. */
static const char *last_line(struct template_install *install)
{
    char *line;

    while (install->tail_length > 0 && strchr(" \r\n\t", install->tail[install->tail_length - 1]) != NULL)
        install->tail[--install->tail_length] = '\0';
    line = memrchr(install->tail, '\n', install->tail_length);
    return line != NULL ? line + 1 : install->tail;
}

static void on_exit_code(void *context, int exit_code, const char *status)
{
    struct template_install *install = context;
    const char *line = last_line(install);
    char message[STDERR_KEPT_BYTES + 128];

    if (exit_code == 0) {
        end(install, RUN_ERROR_NONE, "");
        return;
    }
    snprintf(message, sizeof message, "installing " SDK_PACKAGE " failed (%.64s)%s%s", status,
             *line != '\0' ? ": " : "", line);
    end(install, RUN_ERROR_TEMPLATE_FALLBACK_FAILED, message);
}

static void on_lost(void *context, enum run_error error, const char *message)
{
    if (error == RUN_ERROR_AGENT_START_FAILED)
        error = RUN_ERROR_TEMPLATE_FALLBACK_FAILED;
    end(context, error, message);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    end(context, RUN_ERROR_TEMPLATE_FALLBACK_FAILED, "installing " SDK_PACKAGE " took longer than 120 s");
}

static bool start(struct template_install *install, const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                  const char *sdk_version)
{
    struct agent_stream_request request = {
        .start_timeout_ms = INSTALL_TIMEOUT_MS,
        .idle_timeout_ms = INSTALL_TIMEOUT_MS,
        .as_root = true,
        .counted_as = METRIC_OPERATION_INSTALL,
        .handlers = {.on_start = on_start,
                     .on_output = on_output,
                     .on_exit = on_exit_code,
                     .on_lost = on_lost,
                     .context = install},
    };
    char *command;

    if (asprintf(&command, "npm install --prefix " RUNNER_DIR " --omit=dev --no-audit --no-fund " SDK_PACKAGE "@%s",
                 sdk_version) < 0)
        return false;
    request.command = command;
    install->stream = agent_stream_open(e2b, sandbox, &request);
    free(command);
    return install->stream != NULL;
}

struct template_install *template_install_start(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                                const char *sdk_version,
                                                void (*on_installed)(void *context, const struct e2b_result *result),
                                                void *context)
{
    struct template_install *install = calloc(1, sizeof *install);

    if (install == NULL)
        return NULL;
    install->on_installed = on_installed;
    install->context = context;
    install->timer = evtimer_new(e2b->base, on_timer, install);
    if (install->timer == NULL || !start(install, e2b, sandbox, sdk_version)) {
        template_install_cancel(install);
        return NULL;
    }
    timer_start(install->timer, INSTALL_TIMEOUT_MS);
    return install;
}
