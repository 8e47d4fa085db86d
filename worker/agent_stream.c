#include "worker/agent_stream.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/utf8_cut.h"
#include "worker/byte_space.h"
#include "worker/connect_rpc.h"
#include "worker/e2b_call.h"
#include "worker/memory_watch.h"
#include "worker/output_event.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>

#define ERROR_BODY_MAX_BYTES 65536
#define CODE_MAX_SHOWN       60 /* bytes of a Connect error's code, in the text of an error */
#define STREAM_CONTENT_TYPE  "application/connect+json"
#define LOST_TEXT            "connection to the sandbox was lost"
#define GONE_TEXT            "the sandbox was killed or reached its end of life"

enum stream_state {
    STREAM_OPENING, /* no start event yet */
    STREAM_RUNNING, /* the process runs */
    STREAM_EXITED,  /* end event seen: told, or about to be; the rest of the stream is only logged */
    STREAM_FAILED,  /* no end event will come: told, or about to be */
    STREAM_TOLD,    /* on_exit or on_lost was called */
};

struct agent_stream {
    struct e2b_context e2b;
    const struct e2b_sandbox *sandbox;
    struct agent_stream_handlers handlers;
    struct e2b_call *call;  /* the Start request; NULL once it has ended */
    struct e2b_call *probe; /* is the sandbox gone? */
    struct event *timer;    /* of silence; made active, it tells the end from the loop, outside of libcurl */
    struct envelope_reader reader;
    enum stream_state state;
    bool paused;
    bool clean_end; /* the end-of-stream envelope came */
    bool feeding;   /* inside on_body: the struct must live until it returns */
    bool cancelled; /* inside on_body: to be freed when it returns */
    bool stopped;   /* the bytes of a running process ended, or nothing came, before its end */
    int64_t start_timeout_ms;
    int64_t idle_timeout_ms;
    int64_t last_activity_ms;
    char *scratch; /* base64 decoded */
    size_t scratch_size;
    int exit_code;
    enum run_error error;
    bool probe_first; /* a gone sandbox is sandbox_lost instead of error */
    char *message;    /* of the error, or the exit status; NULL: none, or no memory for it */
};

static void stream_free(struct agent_stream *stream)
{
    e2b_call_cancel(stream->call);
    e2b_call_cancel(stream->probe);
    if (stream->timer != NULL)
        event_free(stream->timer);
    envelope_reader_release(&stream->reader);
    free(stream->scratch);
    free(stream->message);
    free(stream);
}

/* --- its message ------------------------------------------------------------------------------------ */

static void set_message(struct agent_stream *stream, const char *message)
{
    free(stream->message);
    stream->message = strndup(message, E2B_MESSAGE_MAX_BYTES - 1);
}

static const char *message_of(const struct agent_stream *stream)
{
    return stream->message != NULL ? stream->message : "";
}

/* --- the end ---------------------------------------------------------------------------------------- */

static void on_probed(void *context, bool gone)
{
    struct agent_stream *stream = context;

    stream->probe = NULL;
    stream->state = STREAM_TOLD;
    if (gone)
        stream->handlers.on_lost(stream->handlers.context, RUN_ERROR_SANDBOX_LOST, GONE_TEXT);
    else
        stream->handlers.on_lost(stream->handlers.context, stream->error, message_of(stream));
}

static void tell_exit(struct agent_stream *stream)
{
    stream->state = STREAM_TOLD;
    stream->handlers.on_exit(stream->handlers.context, stream->exit_code, message_of(stream));
}

static void tell_lost(struct agent_stream *stream)
{
    e2b_call_cancel(stream->call);
    stream->call = NULL;
    if (stream->probe_first) {
        stream->probe = e2b_probe(&stream->e2b, stream->sandbox, on_probed, stream);
        if (stream->probe != NULL)
            return;
    }
    stream->state = STREAM_TOLD;
    stream->handlers.on_lost(stream->handlers.context, stream->error, message_of(stream));
}

/* The first end counts: an exit, or a failure. What follows an exit is only logged. */
static void fail(struct agent_stream *stream, enum run_error error, bool probe_first, const char *message)
{
    char clean[LOG_CLEAN_BUFFER];

    if (stream->state == STREAM_EXITED)
        log_info_limited("sandbox %s: after the end of its process: %s", stream->sandbox->id,
                         log_clean(message, strlen(message), clean));
    if (stream->state != STREAM_OPENING && stream->state != STREAM_RUNNING)
        return;
    stream->state = STREAM_FAILED;
    stream->error = error;
    stream->probe_first = probe_first;
    set_message(stream, message);
    event_active(stream->timer, 0, 0);
}

/* --- events ------------------------------------------------------------------------------------------ */

static bool on_output(struct agent_stream *stream, const char *text, size_t length, bool is_stderr)
{
    size_t wanted = length / 4 * 3 + 3;
    long decoded;

    if (!byte_space_reserve(&stream->scratch, &stream->scratch_size, wanted)) {
        fail(stream, RUN_ERROR_INTERNAL, false, "out of memory");
        return false;
    }
    decoded = base64_decode(text, length, stream->scratch);
    if (decoded < 0) {
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "output of the sandbox is not base64");
        return false;
    }
    if (decoded > 0)
        stream->handlers.on_output(stream->handlers.context, is_stderr, stream->scratch, (size_t)decoded);
    return !stream->cancelled;
}

static bool on_data_event(struct agent_stream *stream, json_t *data)
{
    json_t *out = json_object_get(data, "stdout");
    json_t *err = json_object_get(data, "stderr");

    if (stream->state != STREAM_RUNNING)
        return true; /* after the end: nothing more counts */
    if (json_is_string(out) && !on_output(stream, json_string_value(out), json_string_length(out), false))
        return false;
    return !json_is_string(err) || on_output(stream, json_string_value(err), json_string_length(err), true);
}

/* An absent exitCode is 0 (e2b.md Part C 6). */
static bool on_end_event(struct agent_stream *stream, json_t *end)
{
    const char *status = json_string_value(json_object_get(end, "status"));

    if (stream->state != STREAM_RUNNING)
        return true;
    stream->state = STREAM_EXITED;
    stream->exit_code = (int)json_integer_value(json_object_get(end, "exitCode"));
    set_message(stream, status != NULL ? status : "");
    event_active(stream->timer, 0, 0);
    return true;
}

static bool on_start_event(struct agent_stream *stream, json_t *start)
{
    if (stream->state == STREAM_OPENING) {
        stream->state = STREAM_RUNNING;
        stream->last_activity_ms = monotonic_ms();
        stream->handlers.on_start(stream->handlers.context, json_integer_value(json_object_get(start, "pid")));
    }
    return !stream->cancelled;
}

/* {"event":{"<kind>":…}}; unknown kinds pass. */
static bool on_any_event(struct agent_stream *stream, const char *payload, size_t length)
{
    json_t *root = json_loadb(payload, length, 0, NULL);
    json_t *event = json_object_get(root, "event");
    json_t *body;
    bool more = true;

    if (root == NULL) {
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "an event of the sandbox is not JSON");
        return false;
    }
    if ((body = json_object_get(event, "data")) != NULL) {
        more = on_data_event(stream, body);
    } else if ((body = json_object_get(event, "start")) != NULL) {
        more = on_start_event(stream, body);
    } else if ((body = json_object_get(event, "end")) != NULL) {
        more = on_end_event(stream, body);
    }
    if (more && stream->state == STREAM_OPENING) {
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "the sandbox's stream does not begin with a start event");
        more = false;
    }
    json_decref(root);
    return more;
}

/* One flag-0 envelope. Nearly all are output. */
static bool on_event(struct agent_stream *stream, const char *payload, size_t length)
{
    struct output_event output;

    if (stream->state == STREAM_RUNNING && output_event_read(payload, length, &output))
        return on_output(stream, output.text, output.length, output.is_stderr);
    return on_any_event(stream, payload, length);
}

/* What a Connect error means, before the start event and after it: e2b.md A.5. */
static void on_end_error(struct agent_stream *stream, json_t *error)
{
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *text = json_string_value(json_object_get(error, "message"));
    const struct e2b_rpc_verdict *verdict = e2b_judge_rpc(code);
    char message[E2B_MESSAGE_MAX_BYTES];

    if (code == NULL)
        code = "unknown";
    snprintf(message, sizeof message, "%.*s: %s", (int)utf8_cut(code, strlen(code), CODE_MAX_SHOWN), code,
             text != NULL ? text : "");
    error_text_hide(message, stream->sandbox->access_token);
    error_text_clean(message);
    if (stream->state == STREAM_OPENING)
        fail(stream, verdict->before_start.error, verdict->before_start.probe, message);
    else
        fail(stream, verdict->after_start, false, verdict->after_start == RUN_ERROR_SANDBOX_LOST ? LOST_TEXT : message);
}

/* The flag-2 envelope: {} or {"error":…}. Without an end event before it, {} breaks the protocol. */
static bool on_end_of_stream(struct agent_stream *stream, const char *payload, size_t length)
{
    json_t *root = json_loadb(payload, length, 0, NULL);
    json_t *error = json_object_get(root, "error");

    stream->clean_end = true;
    if (root == NULL)
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "the end of the sandbox's stream is not JSON");
    else if (error != NULL)
        on_end_error(stream, error);
    else if (stream->state != STREAM_EXITED)
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "the sandbox's stream ended before its process");
    json_decref(root);
    return true;
}

static bool on_envelope(void *context, bool end_of_stream, const char *payload, size_t length)
{
    struct agent_stream *stream = context;

    return end_of_stream ? on_end_of_stream(stream, payload, length) : on_event(stream, payload, length);
}

/* --- bytes ------------------------------------------------------------------------------------------- */

/* Inside libcurl. */
static void on_body(void *operation, const char *bytes, size_t length)
{
    struct agent_stream *stream = operation;
    enum connect_result result;

    if (stream->state != STREAM_OPENING) /* the start event is due in time, however it drips */
        stream->last_activity_ms = monotonic_ms();
    if (stream->state == STREAM_FAILED || stream->state == STREAM_TOLD)
        return;
    if (stream->state == STREAM_OPENING &&
        strcmp(http_transfer_content_type(e2b_call_transfer(stream->call)), STREAM_CONTENT_TYPE) != 0) {
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, "the sandbox's stream has an unexpected Content-Type");
        return;
    }
    stream->feeding = true;
    result = envelope_reader_feed(&stream->reader, bytes, length, on_envelope, stream);
    stream->feeding = false;
    if (stream->cancelled)
        stream_free(stream);
    else if (result != CONNECT_OK && result != CONNECT_STOPPED)
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, false, connect_result_text(result));
}

/* The handler may cancel (free) the stream. */
static void on_body_end(void *operation)
{
    struct agent_stream *stream = operation;

    free(stream->scratch); /* not kept for the hours an agent may think */
    stream->scratch = NULL;
    stream->scratch_size = 0;
    if (stream->handlers.on_output_end != NULL)
        stream->handlers.on_output_end(stream->handlers.context);
}

/* A clean end without end-of-stream: a living sandbox broke the protocol, a dead one is lost (e2b.md A.4). */
static void on_stream_end(struct agent_stream *stream, const struct http_answer *answer)
{
    if (answer->outcome == TRANSFER_ANSWERED && stream->clean_end)
        return; /* told by what its envelopes said */
    stream->stopped |= stream->state == STREAM_RUNNING;
    if (answer->outcome == TRANSFER_ANSWERED)
        fail(stream, RUN_ERROR_UPSTREAM_PROTOCOL, true, "the sandbox's stream ended without its last envelope");
    else if (stream->state == STREAM_OPENING)
        fail(stream, RUN_ERROR_AGENT_START_FAILED, true, LOST_TEXT);
    else
        fail(stream, RUN_ERROR_SANDBOX_LOST, true, LOST_TEXT);
}

static void on_call_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    struct agent_stream *stream = operation;

    stream->call = NULL;
    if (result->error != RUN_ERROR_NONE)
        fail(stream, result->error, false, result->message);
    else
        on_stream_end(stream, answer);
}

/* --- silence ----------------------------------------------------------------------------------------- */

static int64_t silence_limit_ms(const struct agent_stream *stream)
{
    return stream->state == STREAM_OPENING ? stream->start_timeout_ms : stream->idle_timeout_ms;
}

static void arm_silence_timer(struct agent_stream *stream)
{
    int64_t left_ms = stream->last_activity_ms + silence_limit_ms(stream) - monotonic_ms();

    if (left_ms < 1)
        left_ms = 1;
    timer_start(stream->timer, left_ms);
}

/* No silence of the sandbox's: we do not read, or wait to send Start again, or have just done so. */
static void excuse_silence(struct agent_stream *stream)
{
    bool between_tries = stream->call != NULL && e2b_call_transfer(stream->call) == NULL;

    if (stream->paused || between_tries)
        stream->last_activity_ms = monotonic_ms();
    else if (stream->call != NULL && e2b_call_sent_ms(stream->call) > stream->last_activity_ms)
        stream->last_activity_ms = e2b_call_sent_ms(stream->call);
}

/* Activity only moves a number: the timer is set again when it fires, not per event. */
static void check_silence(struct agent_stream *stream)
{
    excuse_silence(stream);
    if (monotonic_ms() - stream->last_activity_ms < silence_limit_ms(stream))
        arm_silence_timer(stream);
    else if (stream->state == STREAM_OPENING)
        fail(stream, RUN_ERROR_AGENT_START_FAILED, false, "the agent did not start in time");
    else {
        stream->stopped = true;
        fail(stream, RUN_ERROR_SANDBOX_LOST, true, LOST_TEXT);
    }
}

/* From the loop: what was seen inside libcurl is told here. The handler may cancel (free) the stream. */
static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct agent_stream *stream = context;

    (void)fd;
    (void)what;
    event_del(stream->timer);
    switch (stream->state) {
    case STREAM_OPENING:
    case STREAM_RUNNING:
        check_silence(stream);
        break;
    case STREAM_EXITED:
        tell_exit(stream);
        break;
    case STREAM_FAILED:
        tell_lost(stream);
        break;
    case STREAM_TOLD:
        break;
    default:
        log_panic("agent_stream: state %d", (int)stream->state);
    }
}

/* --- the public side --------------------------------------------------------------------------------- */

/* One envelope with the process to start, exactly as the SDKs send it. */
static char *start_body(const char *command, size_t *length)
{
    json_t *root =
        json_pack("{s:{s:s, s:[s,s,s]}, s:b}", "process", "cmd", "/bin/bash", "args", "-l", "-c", command, "stdin", 0);
    char *text = root != NULL ? json_dumps_whole(root, JSON_COMPACT) : NULL;
    size_t text_length = text != NULL ? strlen(text) : 0;
    char *body = text != NULL ? malloc(CONNECT_HEADER_BYTES + text_length) : NULL;

    if (body != NULL) {
        envelope_header((unsigned char *)body, (uint32_t)text_length);
        memcpy(body + CONNECT_HEADER_BYTES, text, text_length);
        *length = CONNECT_HEADER_BYTES + text_length;
    }
    free(text);
    json_decref(root);
    return body;
}

static enum e2b_user user_for(const struct agent_stream_request *request, const struct e2b_sandbox *sandbox)
{
    if (request->as_root)
        return E2B_USER_ROOT;
    return sandbox->needs_user ? E2B_USER_NAMED : E2B_USER_OF_ENVD;
}

static struct e2b_call *start_call(struct agent_stream *stream, const struct agent_stream_request *request)
{
    struct e2b_call_spec spec = {
        .stage = E2B_STAGE_START,
        .counted_as = request->counted_as,
        .method = "POST",
        .url = e2b_sandbox_url(stream->sandbox, "/process.Process/Start"),
        .sandbox = stream->sandbox,
        .content_type = STREAM_CONTENT_TYPE,
        .dress = E2B_RPC_STREAM,
        .user = user_for(request, stream->sandbox),
        .answer_max_bytes = ERROR_BODY_MAX_BYTES,
        .send_once = true,
        .on_body = on_body,
        .on_body_end = on_body_end,
        .on_end = on_call_end,
        .operation = stream,
    };

    spec.body = start_body(request->command, &spec.body_length);
    if (spec.body == NULL) {
        free(spec.url);
        return NULL;
    }
    return e2b_call_new(&stream->e2b, &spec);
}

struct agent_stream *agent_stream_open(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                       const struct agent_stream_request *request)
{
    struct agent_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return NULL;
    stream->e2b = *e2b;
    stream->sandbox = sandbox;
    stream->handlers = request->handlers;
    stream->start_timeout_ms = request->start_timeout_ms;
    stream->idle_timeout_ms = request->idle_timeout_ms;
    stream->last_activity_ms = monotonic_ms();
    envelope_reader_init(&stream->reader);
    stream->timer = evtimer_new(e2b->base, on_timer, stream);
    if (stream->timer == NULL || (stream->call = start_call(stream, request)) == NULL) {
        stream_free(stream);
        return NULL;
    }
    arm_silence_timer(stream);
    return stream;
}

void agent_stream_cancel(struct agent_stream *stream)
{
    if (stream == NULL)
        return;
    stream->cancelled = true;
    if (!stream->feeding)
        stream_free(stream);
}

bool agent_stream_stopped(const struct agent_stream *stream)
{
    return stream->stopped;
}

void agent_stream_pause(struct agent_stream *stream)
{
    struct http_transfer *transfer = stream->call != NULL ? e2b_call_transfer(stream->call) : NULL;

    if (!stream->paused)
        metrics_add(METRIC_PAUSES, 1);
    stream->paused = true;
    if (transfer != NULL)
        http_transfer_pause(transfer);
}

void agent_stream_resume(struct agent_stream *stream)
{
    struct http_transfer *transfer = stream->call != NULL ? e2b_call_transfer(stream->call) : NULL;

    stream->paused = false;
    stream->last_activity_ms = monotonic_ms();
    if (transfer != NULL)
        http_transfer_resume(transfer);
}
