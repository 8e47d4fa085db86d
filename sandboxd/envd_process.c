/*
 * envd_process: Process/Start, List and SendSignal over Connect (spec/e2b.md 0.8, 0.9).
 *
 * A stream joins three lives: the HTTP exchange, the process, the sandbox. Whichever ends first ends the stream: the
 * client gone leaves the process running, the process's end closes the stream politely, the sandbox's end cuts it.
 */
#include "sandboxd/base64.h"
#include "sandboxd/daemon.h"
#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/process.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define KEEPALIVE_DEFAULT_S 90
#define KEEPALIVE_MAX_S     3600

/* One subscriber of a process. */
struct stream {
    struct exchange *exchange;
    struct process *process;
    struct sandbox_watch watch;
    struct event *keepalive;
    struct timeval interval;
    bool begun;
    struct evbuffer *out;
};

static void stream_free(struct stream *stream)
{
    event_free(stream->keepalive);
    evbuffer_free(stream->out);
    free(stream);
}

/* The sandbox ends: a raw cut. The process goes with the sandbox. */
static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct stream *stream = (struct stream *)((char *)watch - offsetof(struct stream, watch));

    exchange_cut(stream->exchange);
    stream_free(stream);
}

/* A pause cuts the stream; the process is stopped, and is there again afterwards. */
static void on_sandbox_paused(struct sandbox_watch *watch)
{
    exchange_abort(((struct stream *)((char *)watch - offsetof(struct stream, watch)))->exchange);
}

/* The client left: the process runs on. */
static void on_gone(void *arg)
{
    struct stream *stream = arg;

    sandbox_watch_remove(&stream->watch);
    process_leave(stream->process);
    stream_free(stream);
}

static void on_drained(void *arg)
{
    struct stream *stream = arg;

    process_resume(stream->process);
}

/* Sends what was put into stream->out; the keepalive's time starts anew. */
static void stream_flush(struct stream *stream)
{
    evtimer_add(stream->keepalive, &stream->interval);
    if (!exchange_send(stream->exchange, stream->out))
        process_pause(stream->process);
}

static void put_text(struct stream *stream, const char *text)
{
    rpc_put_envelope(stream->out, 0, text, strlen(text));
}

static void on_keepalive(evutil_socket_t fd, short what, void *arg)
{
    struct stream *stream = arg;

    (void)fd;
    (void)what;
    put_text(stream, "{\"event\":{\"keepalive\":{}}}");
    stream_flush(stream);
}

/* Headers, before the first envelope. */
static void stream_begin(struct stream *stream)
{
    struct evhttp_request *http;

    if (stream->begun)
        return;
    stream->begun = true;
    http = exchange_request(stream->exchange);
    evhttp_add_header(evhttp_request_get_output_headers(http), "Content-Type", RPC_STREAM_TYPE);
    exchange_stream(stream->exchange, 200, on_drained);
}

static void on_started(void *arg, pid_t pid)
{
    struct stream *stream = arg;
    char event[64];

    snprintf(event, sizeof event, "{\"event\":{\"start\":{\"pid\":%d}}}", (int)pid);
    stream_begin(stream);
    put_text(stream, event);
    stream_flush(stream);
}

/* One data event, built in place: this is the path of every byte an agent prints. */
static void on_output(void *arg, enum process_output output, const char *bytes, size_t length)
{
    static const char *const names[PROCESS_OUTPUTS] = {"stdout", "stderr"};
    char event[64 + BASE64_ENCODED_BYTES(PROCESS_OUTPUT_MAX_BYTES)];
    struct stream *stream = arg;
    size_t used = (size_t)sprintf(event, "{\"event\":{\"data\":{\"%s\":\"", names[output]);

    base64_encode(bytes, length, event + used);
    used += BASE64_ENCODED_BYTES(length);
    memcpy(event + used, "\"}}}", 4);
    rpc_put_envelope(stream->out, 0, event, used + 4);
    stream_flush(stream);
}

static void on_silent(void *arg)
{
    struct stream *stream = arg;

    evtimer_del(stream->keepalive);
}

/* Ends the stream politely; error may be NULL, and is taken. */
static void stream_end(struct stream *stream, json_t *error)
{
    sandbox_watch_remove(&stream->watch);
    stream_begin(stream);
    rpc_put_end(stream->out, error);
    (void)exchange_send(stream->exchange, stream->out);
    exchange_finish(stream->exchange);
    json_decref(error);
    stream_free(stream);
}

static void on_ended(void *arg, int wait_status)
{
    char status[PROCESS_STATUS_MAX_BYTES], event[128 + 2 * PROCESS_STATUS_MAX_BYTES];
    struct stream *stream = arg;

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
    put_text(stream, event);
    stream_end(stream, NULL);
}

static void on_failed(void *arg, enum rpc_code code, const char *message)
{
    stream_end(arg, rpc_error(code, message));
}

static const struct process_listener listener = {
    .started = on_started, .output = on_output, .silent = on_silent, .ended = on_ended, .failed = on_failed};

/* Keepalive-Ping-Interval, made harmless: 0 crashes the real envd. */
static int keepalive_seconds(const char *text)
{
    char *end;
    long seconds;

    if (text == NULL)
        return KEEPALIVE_DEFAULT_S;
    seconds = strtol(text, &end, 10);
    if (end == text || *end != '\0')
        return KEEPALIVE_DEFAULT_S;
    if (seconds < 1)
        return 1;
    return seconds > KEEPALIVE_MAX_S ? KEEPALIVE_MAX_S : (int)seconds;
}

/* Reads "process" of a Start into the wish, which borrows from it; false when it is malformed. */
static bool read_wish(const json_t *start, struct process_wish *wish)
{
    const json_t *process = json_object_get(start, "process");
    const json_t *stdin_flag = json_object_get(start, "stdin");
    const json_t *argument;
    size_t i;

    wish->cmd = json_string_value(json_object_get(process, "cmd"));
    wish->args = json_object_get(process, "args");
    wish->envs = json_object_get(process, "envs");
    wish->cwd = json_string_value(json_object_get(process, "cwd"));
    wish->tag = json_string_value(json_object_get(start, "tag"));
    wish->has_stdin = stdin_flag == NULL || !json_is_false(stdin_flag);
    json_array_foreach(wish->args, i, argument)
    {
        if (!json_is_string(argument))
            return false;
    }
    return wish->cmd != NULL && json_is_string_map(wish->envs);
}

/* Joins exchange, process and sandbox. */
static void stream_start(struct request *request, const struct process_wish *wish)
{
    struct stream *stream = memory_new(sizeof *stream);

    stream->out = evbuffer_new();
    stream->keepalive = evtimer_new(request->daemon->base, on_keepalive, stream);
    if (stream->out == NULL || stream->keepalive == NULL)
        log_panic("out of memory");
    stream->interval.tv_sec = keepalive_seconds(request_header(request, "Keepalive-Ping-Interval"));
    stream->process = process_start(request->daemon->base, request->sandbox, wish, &listener, stream);
    if (stream->process == NULL) {
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "error starting process '%s': %s", wish->cmd,
                           strerror(errno));
        stream_free(stream);
        return;
    }
    stream->watch.ended = on_sandbox_ended;
    stream->watch.paused = on_sandbox_paused;
    sandbox_watch_add(request->sandbox, &stream->watch);
    stream->exchange = exchange_new(request->http, on_gone, stream);
}

void envd_process_start(struct request *request)
{
    struct process_wish wish = {0};
    const char *payload = NULL;
    size_t bytes, payload_bytes = 0;
    const char *body = request_body(request, &bytes);
    enum rpc_request_result found = rpc_read_request(body, bytes, &payload, &payload_bytes);
    enum rpc_timeout_result timeout =
        rpc_read_timeout(request_header(request, "Connect-Timeout-Ms"), &wish.deadline_ms);
    json_t *start = found == RPC_REQUEST_OK ? json_loadb(payload, payload_bytes, 0, NULL) : NULL;

    wish.has_deadline = timeout == RPC_TIMEOUT_OK;
    if (found == RPC_REQUEST_NONE)
        reply_stream_error(request->http, RPC_UNIMPLEMENTED, "unary request has zero messages");
    else if (timeout == RPC_TIMEOUT_INVALID)
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "protocol error: invalid Connect-Timeout-Ms");
    else if (start == NULL || !read_wish(start, &wish))
        reply_stream_error(request->http, RPC_INVALID_ARGUMENT, "malformed Start request");
    else
        stream_start(request, &wish);
    json_decref(start);
}

void envd_process_list(struct request *request)
{
    json_t *list = process_list(request->sandbox);

    reply_json(request->http, 200, json_array_size(list) > 0 ? json_pack("{s:O}", "processes", list) : json_object());
    json_decref(list);
}

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
    json_t *body = request_json(request);
    const json_t *selector = json_object_get(body, "process");
    const char *tag = json_string_value(json_object_get(selector, "tag"));
    pid_t pid = (pid_t)json_integer_value(json_object_get(selector, "pid"));
    int signal_number = read_signal(json_object_get(body, "signal"));
    struct process *process = process_find(request->sandbox, pid, tag);

    if (body == NULL)
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "malformed SendSignal request");
    else if (process == NULL && tag != NULL)
        reply_rpc_error(request->http, RPC_NOT_FOUND, "process with tag %s not found", tag);
    else if (process == NULL)
        reply_rpc_error(request->http, RPC_NOT_FOUND, "process with pid %d not found", (int)pid);
    else if (signal_number == 0)
        reply_rpc_error(request->http, RPC_UNIMPLEMENTED, "invalid signal");
    else {
        process_signal(process, signal_number);
        reply_json(request->http, 200, json_object());
    }
    json_decref(body);
}
