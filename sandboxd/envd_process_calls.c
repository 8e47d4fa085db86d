/* envd_process_calls: the other RPCs of Process: List, SendSignal, SendInput, StreamInput, CloseStdin, Update (0.9). */
#include "common/base64.h"
#include "sandboxd/daemon.h"
#include "sandboxd/envd_call.h"
#include "sandboxd/envd_process.h"
#include "sandboxd/envd_stream.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_ERROR_BYTES 256

void envd_process_list(struct request *request)
{
    json_t *message = envd_call_read(request, "List");
    json_t *list;

    if (message == NULL)
        return;
    list = process_list(request->sandbox);
    reply_json(request->http, 200, json_array_size(list) > 0 ? json_pack("{s:O}", "processes", list) : json_object());
    json_decref(list);
    json_decref(message);
}

/* The process that a message selects; NULL after an error was answered. */
static struct process *select_process(struct request *request, const json_t *message)
{
    char reason[PROCESS_SELECTOR_ERROR_BYTES];
    struct process_selector selector;
    struct process *process;

    if (!process_selector_read(message, &selector)) {
        reply_rpc_error(request->http, RPC_UNIMPLEMENTED, "invalid input type <nil>");
        return NULL;
    }
    process = process_find(request->sandbox, selector.pid, selector.tag);
    if (process == NULL)
        reply_rpc_error(request->http, RPC_NOT_FOUND, "%s", process_selector_not_found(&selector, reason));
    return process;
}

/* Reads the message of a call and finds its process; NULL after an error was answered, and then *message is too. */
static struct process *begin_call(struct request *request, const char *what, json_t **message)
{
    struct process *process;

    *message = envd_call_read(request, what);
    if (*message == NULL)
        return NULL;
    process = select_process(request, *message);
    if (process == NULL) {
        json_decref(*message);
        *message = NULL;
    }
    return process;
}

/* --- SendSignal, CloseStdin, Update --------------------------------------------------------------- */

/* The signal of a SendSignal: by name or number; 0 when it is none that we send. */
static int read_signal(const json_t *value)
{
    const char *name = json_string_value(value);

    if (json_is_integer(value))
        return json_integer_value(value) == SIGKILL || json_integer_value(value) == SIGTERM
                   ? (int)json_integer_value(value)
                   : 0;
    if (name == NULL)
        return 0;
    if (strcmp(name, "SIGNAL_SIGKILL") == 0)
        return SIGKILL;
    return strcmp(name, "SIGNAL_SIGTERM") == 0 ? SIGTERM : 0;
}

void envd_process_send_signal(struct request *request)
{
    json_t *message;
    struct process *process = begin_call(request, "SendSignal", &message);
    int signal_number = read_signal(json_object_get(message, "signal"));

    if (process == NULL)
        return;
    if (signal_number == 0) {
        reply_rpc_error(request->http, RPC_UNIMPLEMENTED, "invalid signal");
    } else {
        process_signal(process, signal_number);
        reply_json(request->http, 200, json_object());
    }
    json_decref(message);
}

void envd_process_close_stdin(struct request *request)
{
    json_t *message;
    struct process *process = begin_call(request, "CloseStdin", &message);

    if (process == NULL)
        return;
    if (process_has_pty(process)) {
        reply_rpc_error(request->http, RPC_UNKNOWN,
                        "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead");
    } else {
        process_close_stdin(process);
        reply_json(request->http, 200, json_object());
    }
    json_decref(message);
}

void envd_process_update(struct request *request)
{
    json_t *message;
    struct process *process = begin_call(request, "Update", &message);
    const json_t *pty = json_object_get(message, "pty");
    struct process_size size;

    if (process == NULL)
        return;
    if (!process_size_read(pty, &size))
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "malformed Update request");
    else if (json_is_object(pty) && !process_has_pty(process))
        reply_rpc_error(request->http, RPC_INTERNAL, "error resizing tty: tty not assigned to process");
    else if (json_is_object(pty) && !process_resize(process, &size))
        reply_rpc_error(request->http, RPC_INTERNAL, "error resizing tty: %s", strerror(errno));
    else
        reply_json(request->http, 200, json_object());
    json_decref(message);
}

/* --- SendInput, StreamInput ----------------------------------------------------------------------- */

/* Bytes for a process, collected from one or more messages. */
struct input {
    bool has_pty; /* for its terminal */
    struct evbuffer *bytes;
};

static struct evbuffer *bytes_new(void)
{
    struct evbuffer *bytes = evbuffer_new();

    if (bytes == NULL)
        log_panic("out of memory");
    return bytes;
}

/* An input on its way: ends when it was written, and when whoever asked for it was answered or has left. */
struct input_call {
    struct envd_call *unary;    /* or NULL */
    struct envd_stream *stream; /* or NULL */
    bool is_writing;
    bool has_pty;
    pid_t pid;
};

static void input_call_release(struct input_call *call)
{
    if (call->unary == NULL && call->stream == NULL && !call->is_writing)
        free(call);
}

static void on_input_closed(void *arg)
{
    struct input_call *call = arg;

    call->unary = NULL;
    call->stream = NULL;
    input_call_release(call);
}

static void on_input_drained(void *arg)
{
    (void)arg;
}

static const struct envd_stream_owner input_stream_owner = {
    .keepalive = "{}", .closed = on_input_closed, .drained = on_input_drained};

/* Answers; a NULL message is success. */
static void input_answer(struct input_call *call, enum rpc_code code, const char *message)
{
    if (call->unary != NULL && message == NULL) {
        envd_call_reply(call->unary, json_object());
    } else if (call->unary != NULL) {
        envd_call_error(call->unary, code, message);
    } else if (call->stream != NULL && message == NULL) {
        (void)envd_stream_send(call->stream, "{}", 2);
        envd_stream_end(call->stream, NULL);
    } else if (call->stream != NULL) {
        envd_stream_end(call->stream, rpc_error(code, message));
    }
    call->unary = NULL;
    call->stream = NULL;
}

static void on_written(void *arg, enum process_written_result result, const char *error)
{
    struct input_call *call = arg;
    const char *target = call->has_pty ? "tty" : "stdin";
    char message[INPUT_ERROR_BYTES];

    call->is_writing = false;
    snprintf(message, sizeof message, "error writing to %s: error writing to %s of process '%d': %s", target, target,
             (int)call->pid, error == NULL ? "" : error);
    /* When the sandbox ends, the call hears of it by itself. */
    if (result != PROCESS_WRITE_GONE)
        input_answer(call, RPC_INTERNAL, result == PROCESS_WRITTEN ? NULL : message);
    input_call_release(call);
}

/* Why this process does not take this kind of input; NULL when it does. */
static const char *input_mismatch(const struct process *process, bool has_pty)
{
    if (has_pty && !process_has_pty(process))
        return "error writing to tty: tty not assigned to process — input should be written to the stdin, not the tty";
    if (!has_pty && process_has_pty(process))
        return "error writing to stdin: tty assigned to process — input should be written to the pty, not the stdin";
    return NULL;
}

/* Writes the input, and answers the call when it was written, or at once. */
static void input_write(struct input_call *call, struct process *process, const struct input *input)
{
    size_t length = evbuffer_get_length(input->bytes);
    const char *mismatch = input_mismatch(process, input->has_pty);

    call->has_pty = input->has_pty;
    call->pid = process_pid(process);
    if (mismatch != NULL) {
        input_answer(call, RPC_INTERNAL, mismatch);
        input_call_release(call);
        return;
    }
    call->is_writing = true;
    switch (process_write(process, length == 0 ? "" : (const char *)evbuffer_pullup(input->bytes, -1), length,
                          on_written, call)) {
    case PROCESS_WRITE_QUEUED:
        return; /* perhaps written and answered already */
    case PROCESS_WRITE_CLOSED:
        input_answer(call, RPC_INTERNAL, "error writing to stdin: stdin not enabled or closed");
        break;
    case PROCESS_WRITE_FULL:
        input_answer(call, RPC_RESOURCE_EXHAUSTED, "the process does not read the input that waits for it already");
        break;
    }
    call->is_writing = false;
    input_call_release(call);
}

/* Adds "input":{"stdin"|"pty":base64}; an error for the client, or NULL. */
static const char *input_add(struct input *input, const json_t *value)
{
    const json_t *text = json_object_get(value, "stdin");
    struct evbuffer_iovec room;
    size_t decoded;

    input->has_pty = text == NULL;
    if (text == NULL)
        text = json_object_get(value, "pty");
    if (!json_is_string(text))
        return "invalid input type <nil>";
    if (evbuffer_reserve_space(input->bytes, (ev_ssize_t)(json_string_length(text) / 4 * 3 + 2), &room, 1) != 1)
        return "out of memory";
    if (!base64_decode_lenient(json_string_value(text), json_string_length(text), room.iov_base, &decoded))
        return "input is not base64";
    room.iov_len = decoded;
    evbuffer_commit_space(input->bytes, &room, 1);
    return NULL;
}

void envd_process_send_input(struct request *request)
{
    struct input input = {.bytes = bytes_new()};
    json_t *message;
    struct process *process = begin_call(request, "SendInput", &message);
    const char *error = process == NULL ? NULL : input_add(&input, json_object_get(message, "input"));

    if (error != NULL) {
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "%s", error);
    } else if (process != NULL) {
        struct input_call *call = memory_new(sizeof *call);

        call->unary = envd_call_new(request, on_input_closed, call);
        input_write(call, process, &input);
    }
    json_decref(message);
    evbuffer_free(input.bytes);
}

/* Takes one message of a StreamInput; an error for the client, or NULL. */
static const char *take_stream_event(struct request *request, const json_t *event, struct process **process,
                                     struct input *input, char reason[static PROCESS_SELECTOR_ERROR_BYTES])
{
    const json_t *start = json_object_get(event, "start");
    const json_t *data = json_object_get(event, "data");
    struct process_selector selector;

    if (start != NULL) {
        if (!process_selector_read(start, &selector))
            return "invalid input type <nil>";
        *process = process_find(request->sandbox, selector.pid, selector.tag);
        return *process == NULL ? process_selector_not_found(&selector, reason) : NULL;
    }
    if (data != NULL)
        return *process == NULL ? "data before start" : input_add(input, json_object_get(data, "input"));
    return json_object_get(event, "keepalive") == NULL ? "invalid event type <nil>" : NULL;
}

/* Reads all messages of a StreamInput; an error for the client, or NULL. */
static const char *read_stream_input(struct request *request, struct process **process, struct input *input,
                                     char reason[static PROCESS_SELECTOR_ERROR_BYTES])
{
    size_t bytes, payload_bytes;
    const char *next = request_body(request, &bytes), *end = next + bytes, *payload, *error = NULL;
    enum rpc_request_result found = RPC_REQUEST_OK;

    while (error == NULL && (found = rpc_next_request(end, &next, &payload, &payload_bytes)) == RPC_REQUEST_OK) {
        json_t *event = json_loadb(payload, payload_bytes, 0, NULL);

        error =
            event == NULL ? "malformed StreamInput request" : take_stream_event(request, event, process, input, reason);
        json_decref(event);
    }
    if (error == NULL && (found == RPC_REQUEST_MALFORMED || *process == NULL))
        error = "malformed StreamInput request";
    return error;
}

/* The messages are taken when the body is complete: no SDK uses this call. */
void envd_process_stream_input(struct request *request)
{
    const struct envd_stream_call no_deadline = {0};
    struct input input = {.bytes = bytes_new()};
    char reason[PROCESS_SELECTOR_ERROR_BYTES];
    struct process *process = NULL;
    const char *error = read_stream_input(request, &process, &input, reason);

    if (error != NULL) {
        reply_stream_error(request->http, error == reason ? RPC_NOT_FOUND : RPC_INVALID_ARGUMENT, "%s", error);
    } else {
        struct input_call *call = memory_new(sizeof *call);

        call->stream = envd_stream_new(request, &no_deadline, &input_stream_owner, call);
        input_write(call, process, &input);
    }
    evbuffer_free(input.bytes);
}
