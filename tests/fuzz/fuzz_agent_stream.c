/*
 * The stream of an agent's process, from the bytes of a sandbox to what a run hears: cut anywhere it is the same, it
 * ends once, and what is told to a client is one line of UTF-8. sandboxd's reader of envelopes finds the same ones.
 */
#include "sandboxd/rpc.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "tests/fuzz/fuzz_http.h"
#include "worker/agent_stream.h"
#include "worker/connect_rpc.h"
#include "worker/utf8.h"

#define TOKEN "token0123456789"

static struct event_base *base;

/* What a run heard of one stream. */
struct heard {
    struct evbuffer *output, *errors;
    int starts, ends;
    int64_t pid;
    int exit_code; /* -1: lost */
    enum run_error error;
    char *message;
};

static void on_start(void *context, int64_t pid)
{
    struct heard *heard = context;

    FUZZ_CHECK(heard->starts++ == 0 && heard->ends == 0);
    heard->pid = pid;
}

static void on_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    struct heard *heard = context;

    FUZZ_CHECK(heard->starts == 1 && heard->ends == 0);
    evbuffer_add(is_stderr ? heard->errors : heard->output, bytes, length);
}

static void on_output_end(void *context)
{
    (void)context;
}

static void end(struct heard *heard, const char *message)
{
    FUZZ_CHECK(heard->ends++ == 0 && strlen(message) < E2B_MESSAGE_MAX_BYTES);
    heard->message = strdup(message);
}

static void on_exit_told(void *context, int exit_code, const char *status)
{
    struct heard *heard = context;

    FUZZ_CHECK(heard->starts == 1);
    heard->exit_code = exit_code;
    end(heard, status);
}

/* It goes to the client as it is. */
static void on_lost(void *context, enum run_error error, const char *message)
{
    struct heard *heard = context;

    FUZZ_CHECK(error != RUN_ERROR_NONE && *message != '\0' && utf8_is_valid(message, strlen(message)));
    FUZZ_CHECK(strpbrk(message, "\r\n") == NULL && strstr(message, TOKEN) == NULL);
    heard->exit_code = -1;
    heard->error = error;
    end(heard, message);
}

static struct heard play(const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    static struct e2b_service service = {
        .references = 1, .api_url = "http://a", .sandbox_url = "", .domain = "", .api_key = ""};
    static const struct e2b_sandbox sandbox = {.id = "i1", .access_token = TOKEN, .base_url = "http://s"};
    const struct e2b_context e2b = {.base = base, .service = &service};
    struct heard heard = {.output = evbuffer_new(), .errors = evbuffer_new()};
    const struct agent_stream_request request = {
        .command = "x",
        .start_timeout_ms = 60000,
        .idle_timeout_ms = 60000,
        .handlers = {on_start, on_output, on_output_end, on_exit_told, on_lost, &heard}};
    struct agent_stream *stream = agent_stream_open(&e2b, &sandbox, &request);
    struct http_request http = fuzz_http.request;
    const struct http_answer answer = {.status = 200, .retry_after_s = -1, .content_type = "", .body = "", .error = ""};
    const struct http_answer cut = {
        .outcome = TRANSFER_CUT, .status = 200, .retry_after_s = -1, .body = "", .error = ""};
    unsigned sent = fuzz_http.sent;

    FUZZ_CHECK(stream != NULL);
    for (size_t at = 0; at < size;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        http.on_body(http.context, (const char *)data + at, piece);
        at += piece;
    }
    http.on_done(http.context, &answer);
    event_base_loop(base, EVLOOP_NONBLOCK);
    if (fuzz_http.sent > sent) { /* it asks whether the sandbox is gone */
        fuzz_http.request.on_done(fuzz_http.request.context, &cut);
        event_base_loop(base, EVLOOP_NONBLOCK);
    }
    FUZZ_CHECK(heard.ends == 1);
    agent_stream_cancel(stream);
    return heard;
}

static void release(struct heard *heard)
{
    evbuffer_free(heard->output);
    evbuffer_free(heard->errors);
    free(heard->message);
}

/* --- envelopes -------------------------------------------------------------------------------------------- */

/* The payloads one after the other, each with its length before it. */
static bool on_envelope(void *context, bool end_of_stream, const char *payload, size_t length)
{
    (void)end_of_stream;
    evbuffer_add(context, &length, sizeof length);
    evbuffer_add(context, payload, length);
    return true;
}

static void compare_with_sandboxd(const uint8_t *data, size_t size)
{
    struct evbuffer *ours = evbuffer_new(), *theirs = evbuffer_new();
    const char *next = (const char *)data, *end = next + size, *payload;
    enum rpc_request_result result;
    struct envelope_reader reader;
    size_t length;

    while ((result = rpc_next_request(end, &next, &payload, &length)) == RPC_REQUEST_OK)
        on_envelope(theirs, false, payload, length);
    envelope_reader_init(&reader);
    /* It knows one flag more: only what has none is comparable. */
    if (result == RPC_REQUEST_NONE) {
        FUZZ_CHECK(envelope_reader_feed(&reader, (const char *)data, size, on_envelope, ours) == CONNECT_OK);
        FUZZ_CHECK(!envelope_reader_torn(&reader));
        FUZZ_CHECK(fuzz_buffers_equal(ours, theirs));
    }
    envelope_reader_release(&reader);
    evbuffer_free(ours);
    evbuffer_free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct heard whole, cut;

    if (base == NULL)
        base = event_base_new();
    whole = play(data, size, NULL);
    cut = play(data, size, &pieces);
    FUZZ_CHECK(whole.starts == cut.starts && whole.pid == cut.pid && whole.exit_code == cut.exit_code);
    FUZZ_CHECK(whole.error == cut.error && strcmp(whole.message, cut.message) == 0);
    FUZZ_CHECK(fuzz_buffers_equal(whole.output, cut.output));
    FUZZ_CHECK(fuzz_buffers_equal(whole.errors, cut.errors));
    release(&whole);
    release(&cut);
    compare_with_sandboxd(data, size);
    return 0;
}
