/*
 * envd_process: the streams of a process, Process/Start and Connect (spec/e2b.md 0.8, 0.9).
 *
 * The client gone leaves the process running, the process's end closes the stream politely, the sandbox's end cuts it.
 */
#include "sandboxd/envd_process.h"

#include "common/base64.h"
#include "sandboxd/daemon.h"
#include "sandboxd/envd_stream.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

/* What the kernel can hold. */
#define TERMINAL_SIZE_MAX 65535

/* One subscriber of a process. */
struct output_stream {
    struct envd_stream *stream;
    struct process_subscriber subscriber;
};

static void on_closed(void *arg)
{
    struct output_stream *output = arg;

    process_leave(&output->subscriber);
    free(output);
}

static void on_drained(void *arg)
{
    struct output_stream *output = arg;

    process_resume(&output->subscriber);
}

static const struct envd_stream_owner owner = {
    .keepalive = "{\"event\":{\"keepalive\":{}}}", .closed = on_closed, .drained = on_drained};

/* Sends an event; a client that does not keep up pauses the process. */
static void send_event(struct output_stream *output, const char *event, size_t bytes)
{
    if (!envd_stream_send(output->stream, event, bytes))
        process_pause(&output->subscriber);
}

static void on_started(void *arg, pid_t pid)
{
    char event[64];
    int used = snprintf(event, sizeof event, "{\"event\":{\"start\":{\"pid\":%d}}}", (int)pid);

    send_event(arg, event, (size_t)used);
}

/* One data event, built in place: this is the path of every byte an agent prints. */
static void on_output(void *arg, enum process_output source, const char *bytes, size_t length)
{
    static const char *const names[PROCESS_OUTPUTS] = {"stdout", "stderr", "pty"};
    char event[64 + BASE64_ENCODED_BYTES(PROCESS_OUTPUT_MAX_BYTES)];
    size_t used = (size_t)sprintf(event, "{\"event\":{\"data\":{\"%s\":\"", names[source]);

    base64_encode(bytes, length, event + used);
    used += BASE64_ENCODED_BYTES(length);
    memcpy(event + used, "\"}}}", 4);
    send_event(arg, event, used + 4);
}

static void on_silent(void *arg)
{
    struct output_stream *output = arg;

    envd_stream_quiet(output->stream);
}

static void on_ended(void *arg, int wait_status)
{
    char status[PROCESS_STATUS_MAX_BYTES], event[128 + 2 * PROCESS_STATUS_MAX_BYTES];
    struct output_stream *output = arg;

    process_status_text(wait_status, status);
    if (wait_status == 0)
        snprintf(event, sizeof event, "{\"event\":{\"end\":{\"exited\":true,\"status\":\"%s\"}}}", status);
    else if (WIFEXITED(wait_status))
        snprintf(event, sizeof event,
                 "{\"event\":{\"end\":{\"exitCode\":%d,\"exited\":true,\"status\":\"%s\",\"error\":\"%s\"}}}",
                 WEXITSTATUS(wait_status), status, status);
    else
        snprintf(event, sizeof event, "{\"event\":{\"end\":{\"exitCode\":-1,\"status\":\"%s\",\"error\":\"%s\"}}}",
                 status, status);
    (void)envd_stream_send(output->stream, event, strlen(event));
    envd_stream_end(output->stream, NULL);
    free(output);
}

static void on_failed(void *arg, enum rpc_code code, const char *message)
{
    struct output_stream *output = arg;

    envd_stream_end(output->stream, rpc_error(code, message));
    free(output);
}

static const struct process_listener listener = {
    .started = on_started, .output = on_output, .silent = on_silent, .ended = on_ended, .failed = on_failed};

/* Makes a stream that listens to nothing yet. */
static struct output_stream *output_stream_new(struct request *request, const struct envd_stream_call *call)
{
    struct output_stream *output = memory_new(sizeof *output);

    output->subscriber = (struct process_subscriber){.listener = &listener, .arg = output};
    output->stream = envd_stream_new(request, call, &owner, output);
    return output;
}

/* --- Start ---------------------------------------------------------------------------------------- */

/* A dimension of a terminal; false when it is none. */
static bool read_dimension(const json_t *value, uint16_t *dimension)
{
    if (value != NULL &&
        (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > TERMINAL_SIZE_MAX))
        return false;
    *dimension = (uint16_t)json_integer_value(value);
    return true;
}

bool process_size_read(const json_t *pty, struct process_size *size)
{
    const json_t *given = json_object_get(pty, "size");

    return read_dimension(json_object_get(given, "cols"), &size->cols) &&
           read_dimension(json_object_get(given, "rows"), &size->rows);
}

/* Reads a Start into the wish, which borrows from it; false when it is malformed. */
static bool read_wish(const struct envd_stream_call *call, struct process_wish *wish)
{
    const json_t *process = json_object_get(call->message, "process");
    const json_t *stdin_flag = json_object_get(call->message, "stdin");
    const json_t *pty = json_object_get(call->message, "pty");
    const json_t *argument;
    size_t i;

    wish->has_deadline = call->has_deadline;
    wish->deadline_ms = call->deadline_ms;
    wish->cmd = json_string_value(json_object_get(process, "cmd"));
    wish->args = json_object_get(process, "args");
    wish->envs = json_object_get(process, "envs");
    wish->cwd = json_string_value(json_object_get(process, "cwd"));
    wish->tag = json_string_value(json_object_get(call->message, "tag"));
    wish->has_stdin = stdin_flag == NULL || !json_is_false(stdin_flag);
    wish->has_pty = json_is_object(pty);
    json_array_foreach(wish->args, i, argument)
    {
        if (!json_is_string(argument))
            return false;
    }
    return wish->cmd != NULL && json_is_string_map(wish->envs) && process_size_read(pty, &wish->size);
}

void envd_process_start(struct request *request)
{
    struct process_wish wish = {0};
    struct envd_stream_call call;
    struct output_stream *output;

    if (!envd_stream_read(request, "Start", &call))
        return;
    if (!read_wish(&call, &wish)) {
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "malformed Start request");
        json_decref(call.message);
        return;
    }
    output = output_stream_new(request, &call);
    if (!process_start(request->daemon->base, request->sandbox, &wish, &output->subscriber)) {
        char message[512];

        snprintf(message, sizeof message, "error starting process '%.256s': %s", wish.cmd, strerror(errno));
        on_failed(output, RPC_INVALID_ARGUMENT, message);
    }
    json_decref(call.message);
}

/* --- Connect -------------------------------------------------------------------------------------- */

bool process_selector_read(const json_t *message, struct process_selector *selector)
{
    const json_t *process = json_object_get(message, "process");
    const json_t *pid = json_object_get(process, "pid");
    long long number = json_is_string(pid) ? strtoll(json_string_value(pid), NULL, 10) : json_integer_value(pid);

    selector->tag = json_string_value(json_object_get(process, "tag"));
    selector->pid = number >= 0 && number <= INT_MAX ? (pid_t)number : -1; /* nobody, not the one of its low bits */
    return selector->tag != NULL || json_is_integer(pid) || json_is_string(pid);
}

const char *process_selector_not_found(const struct process_selector *selector,
                                       char out[static PROCESS_SELECTOR_ERROR_BYTES])
{
    if (selector->tag != NULL)
        snprintf(out, PROCESS_SELECTOR_ERROR_BYTES, "process with tag %.256s not found", selector->tag);
    else
        snprintf(out, PROCESS_SELECTOR_ERROR_BYTES, "process with pid %d not found", (int)selector->pid);
    return out;
}

void envd_process_connect(struct request *request)
{
    char reason[PROCESS_SELECTOR_ERROR_BYTES];
    struct process_selector selector;
    struct envd_stream_call call;
    struct process *process;

    if (!envd_stream_read(request, "Connect", &call))
        return;
    if (!process_selector_read(call.message, &selector)) {
        reply_stream_error(request->http, RPC_UNIMPLEMENTED, "invalid input type <nil>");
    } else if ((process = process_find_kept(request->sandbox, selector.pid, selector.tag)) == NULL) {
        reply_stream_error(request->http, RPC_NOT_FOUND, "%s", process_selector_not_found(&selector, reason));
    } else {
        process_join(process, &output_stream_new(request, &call)->subscriber);
    }
    json_decref(call.message);
}
