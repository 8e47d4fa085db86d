#include "worker/e2b_call.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "worker/error_text.h"
#include "worker/timer.h"

#include <stdlib.h>
#include <string.h>

struct e2b_call {
    struct e2b_context e2b; /* with a reference of its own to the service */
    struct e2b_call_spec spec;
    struct http_transfer *transfer; /* NULL between tries */
    struct e2b_call *probe;         /* asks whether the sandbox is gone, before a failure is told */
    struct event *retry_timer;      /* NULL: it was not needed yet */
    int tries;
    bool counted; /* this try */
    int64_t first_try_ms;
    int64_t last_try_ms;
    bool abandoned;
    bool fate_unknown;
    enum run_error pending_error; /* while the probe is under way */
    char *pending_message;
};

static bool send_try(struct e2b_call *call);
static void on_retry(evutil_socket_t fd, short what, void *context);

struct e2b_result e2b_failed(enum run_error error, const char *message)
{
    return (struct e2b_result){.error = error, .message = message};
}

static void call_free(struct e2b_call *call)
{
    e2b_call_cancel(call->probe);
    if (call->transfer != NULL && !call->counted)
        e2b_count_cancelled(call->spec.counted_as);
    http_transfer_cancel(call->transfer);
    if (call->retry_timer != NULL)
        event_free(call->retry_timer);
    if (call->spec.free_operation != NULL)
        call->spec.free_operation(call->spec.operation);
    free(call->spec.url);
    free(call->spec.body);
    free(call->spec.parts);
    json_decref(call->spec.secrets);
    free(call->pending_message);
    e2b_service_unref(call->e2b.service);
    free(call);
}

/* Tells the operation, once; the call is gone afterwards. */
static void end(struct e2b_call *call, enum run_error error, const char *message, const struct http_answer *answer)
{
    struct e2b_result result = {.error = error,
                                .message = message,
                                .status = answer != NULL ? answer->status : 0,
                                .fate_unknown = call->fate_unknown};

    call->spec.on_end(call->spec.operation, &result, answer);
    call_free(call);
}

static void on_probed(void *context, bool gone)
{
    struct e2b_call *call = context;

    call->probe = NULL;
    if (gone)
        end(call, RUN_ERROR_SANDBOX_LOST, "the sandbox was killed or reached its end of life", NULL);
    else
        end(call, call->pending_error, call->pending_message, NULL);
}

/* Only the operator can mend this: the reason alone would not say where. */
static void log_refused_certificate(const struct e2b_call *call, const struct http_answer *answer)
{
    char clean[LOG_CLEAN_BUFFER];
    char *host = http_url_host(call->spec.url);

    log_error("sandbox service: the certificate of %s is refused: %s",
              host != NULL ? log_clean(host, strlen(host), clean) : "the service", answer->error);
    free(host);
}

/* What went wrong, for the log and the client. The service may quote what it was sent. */
static void describe(const struct e2b_call *call, const struct http_answer *answer,
                     char message[static E2B_MESSAGE_MAX_BYTES])
{
    const char *name;
    json_t *value;

    e2b_message(answer, call->e2b.service->api_key, message);
    if (call->spec.sandbox != NULL)
        error_text_hide(message, call->spec.sandbox->access_token);
    json_object_foreach(call->spec.secrets, name, value) error_text_hide(message, json_string_value(value));
}

/* The tries are used up: the failure is told, after a probe where the table asks for one. */
static void give_up(struct e2b_call *call, const struct e2b_verdict *verdict, const struct http_answer *answer)
{
    char message[E2B_MESSAGE_MAX_BYTES];

    if (answer->outcome == TRANSFER_TLS_UNTRUSTED)
        log_refused_certificate(call, answer);
    describe(call, answer, message);
    call->fate_unknown |= verdict->fate_unknown;
    if (verdict->probe && call->spec.sandbox != NULL && !call->abandoned &&
        (call->pending_message = strdup(message)) != NULL) {
        call->pending_error = verdict->error;
        call->probe = e2b_probe(&call->e2b, call->spec.sandbox, on_probed, call);
        if (call->probe != NULL)
            return;
    }
    end(call, verdict->error, message, answer);
}

/* Milliseconds to the next try, or -1 when there is none. */
static int64_t next_try_in(const struct e2b_call *call, const struct e2b_verdict *verdict,
                           const struct http_answer *answer)
{
    int64_t wait_ms;

    if (call->abandoned)
        return -1;
    if (verdict->tries != E2B_TRIES_TIMED) {
        if (call->tries >= verdict->tries)
            return -1;
        wait_ms = e2b_backoff_ms(call->tries + 1);
        return wait_ms > answer->retry_after_s * 1000 ? wait_ms : answer->retry_after_s * 1000;
    }
    wait_ms = e2b_timed_backoff_ms(call->tries + 1, answer->retry_after_s);
    return monotonic_ms() + wait_ms > call->first_try_ms + call->spec.retry_timeout_ms ? -1 : wait_ms;
}

/* An RPC may be refused in Connect's words, with a meaning of their own. */
static const struct e2b_verdict *judge(const struct e2b_call *call, enum e2b_failure failure,
                                       const struct http_answer *answer)
{
    const struct e2b_rpc_verdict *rpc = call->spec.dress == E2B_RPC_STREAM ? e2b_judge_rpc_answer(answer) : NULL;

    return rpc != NULL ? &rpc->before_start : e2b_judge(call->spec.stage, failure);
}

static void on_answer(void *context, const struct http_answer *answer)
{
    struct e2b_call *call = context;
    bool streamed = call->spec.on_body != NULL && !call->spec.wants_whole && answer->status / 100 == 2;
    enum e2b_failure failure = e2b_classify(answer);
    const struct e2b_verdict *verdict;
    int64_t wait_ms;
    char message[E2B_MESSAGE_MAX_BYTES], clean[LOG_CLEAN_BUFFER];

    call->transfer = NULL;
    if (!call->counted)
        e2b_count_answer(call->spec.counted_as, answer);
    if (streamed || failure == E2B_SUCCESS) {
        end(call, RUN_ERROR_NONE, "", answer);
        return;
    }
    verdict = judge(call, failure, answer);
    wait_ms = next_try_in(call, verdict, answer);
    if (wait_ms < 0) {
        give_up(call, verdict, answer);
        return;
    }
    call->fate_unknown |= verdict->fate_unknown;
    describe(call, answer, message);
    if (call->retry_timer == NULL && (call->retry_timer = evtimer_new(call->e2b.base, on_retry, call)) == NULL) {
        end(call, RUN_ERROR_INTERNAL, "out of memory", NULL);
        return;
    }
    log_info_limited("sandbox service: %s%s%s: try %d failed: %s; next in %lld ms", e2b_stage_name(call->spec.stage),
                     call->spec.sandbox != NULL ? " of sandbox " : "",
                     call->spec.sandbox != NULL ? call->spec.sandbox->id : "", call->tries,
                     log_clean(message, strlen(message), clean), (long long)wait_ms);
    timer_start(call->retry_timer, wait_ms);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    struct e2b_call *call = context;

    (void)fd;
    (void)what;
    e2b_count_retry(call->spec.counted_as);
    if (call->spec.on_again != NULL)
        call->spec.on_again(call->spec.operation);
    if (!send_try(call))
        end(call, RUN_ERROR_INTERNAL, "out of memory", NULL);
}

/* --- headers --------------------------------------------------------------------------------------- */

/* e2b.md 0.6: the routing headers go along always; the API key never does. */
static bool add_sandbox_headers(struct curl_slist **headers, const struct e2b_sandbox *sandbox)
{
    return http_add_header(headers, "E2b-Sandbox-Id", sandbox->id) &&
           http_add_header(headers, "E2b-Sandbox-Port", "49983") &&
           (sandbox->access_token == NULL || http_add_header(headers, "X-Access-Token", sandbox->access_token));
}

/* No Connect-Timeout-Ms: it would kill the agent on its own clock. Authorization is base64 of "<user>:". */
static bool add_rpc_headers(struct curl_slist **headers, enum e2b_dress dress, enum e2b_user user)
{
    static const char *const authorizations[] = {
        [E2B_USER_OF_ENVD] = NULL, [E2B_USER_NAMED] = "Basic dXNlcjo=", [E2B_USER_ROOT] = "Basic cm9vdDo="};

    return http_add_header(headers, "Connect-Protocol-Version", "1") &&
           (dress != E2B_RPC_STREAM || http_add_header(headers, "Keepalive-Ping-Interval", "50")) &&
           (authorizations[user] == NULL || http_add_header(headers, "Authorization", authorizations[user]));
}

static bool add_headers(const struct e2b_call *call, struct curl_slist **headers)
{
    const struct e2b_call_spec *spec = &call->spec;
    const char *api_key = call->e2b.service->api_key;

    if (spec->content_type != NULL && !http_add_header(headers, "Content-Type", spec->content_type))
        return false;
    if (spec->sandbox == NULL)
        return *api_key == '\0' || http_add_header(headers, "X-API-KEY", api_key);
    return add_sandbox_headers(headers, spec->sandbox) &&
           (spec->dress == E2B_PLAIN || add_rpc_headers(headers, spec->dress, spec->user));
}

/* --- sending --------------------------------------------------------------------------------------- */

/* A stream is counted when it begins: nobody may wait for its end. */
static void forward_body(void *context, const char *bytes, size_t length)
{
    struct e2b_call *call = context;

    if (!call->counted && !call->spec.wants_whole) {
        call->counted = true;
        metrics_sandbox_call(call->spec.counted_as, http_transfer_status(call->transfer), "");
    }
    call->spec.on_body(call->spec.operation, bytes, length);
}

static void forward_body_end(void *context)
{
    struct e2b_call *call = context;

    call->spec.on_body_end(call->spec.operation);
}

static bool send_try(struct e2b_call *call)
{
    const struct e2b_call_spec *spec = &call->spec;
    struct http_request request = {
        .method = spec->method,
        .url = spec->url,
        .unix_socket = call->e2b.service->unix_socket,
        .body = spec->body,
        .body_length = spec->body_length,
        .parts = spec->parts,
        .part_count = spec->part_count,
        .total_timeout_ms = spec->total_timeout_ms,
        .stall_timeout_ms = spec->stall_timeout_ms,
        .answer_max_bytes = spec->answer_max_bytes,
        .lasts = spec->dress == E2B_RPC_STREAM,
        .stream_max_bytes = spec->stream_max_bytes,
        .send_once = spec->send_once,
        .on_body = spec->on_body != NULL ? forward_body : NULL,
        .on_body_end = spec->on_body_end != NULL ? forward_body_end : NULL,
        .on_done = on_answer,
        .context = call,
    };

    if (!add_headers(call, &request.headers)) {
        curl_slist_free_all(request.headers);
        return false;
    }
    call->tries++;
    call->last_try_ms = monotonic_ms();
    call->counted = false;
    call->transfer = http_client_send(call->e2b.http, &request);
    return call->transfer != NULL;
}

struct e2b_call *e2b_call_new(const struct e2b_context *e2b, const struct e2b_call_spec *spec)
{
    struct e2b_call *call = calloc(1, sizeof *call);

    if (call == NULL) {
        free(spec->url);
        free(spec->body);
        free(spec->parts);
        json_decref(spec->secrets);
        if (spec->free_operation != NULL)
            spec->free_operation(spec->operation);
        return NULL;
    }
    call->e2b = *e2b;
    e2b_service_ref(call->e2b.service);
    call->spec = *spec;
    call->first_try_ms = monotonic_ms();
    if (call->spec.url == NULL || !send_try(call)) {
        call_free(call);
        return NULL;
    }
    return call;
}

void e2b_call_cancel(struct e2b_call *call)
{
    if (call != NULL)
        call_free(call);
}

bool e2b_call_abandon(struct e2b_call *call)
{
    call->abandoned = true;
    return call->transfer != NULL;
}

struct http_transfer *e2b_call_transfer(const struct e2b_call *call)
{
    return call->transfer;
}

bool e2b_call_fate_unknown(const struct e2b_call *call)
{
    return call->fate_unknown;
}

int64_t e2b_call_sent_ms(const struct e2b_call *call)
{
    return call->last_try_ms;
}

void *e2b_call_operation(const struct e2b_call *call)
{
    return call->spec.operation;
}
