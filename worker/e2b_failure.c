#include "worker/e2b_failure.h"

#include "common/log.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define RETRY_FIRST_MS   250
#define RETRY_LATER_MS   1000
#define RETRY_JITTER     30 /* percent, either way */
#define TIMED_FIRST_MS   500
#define TIMED_LARGEST_MS 8000

static const char *const stage_names[E2B_STAGE_COUNT] = {[E2B_STAGE_CREATE] = "create",
                                                         [E2B_STAGE_UPLOAD] = "upload",
                                                         [E2B_STAGE_START] = "start",
                                                         [E2B_STAGE_READ] = "read",
                                                         [E2B_STAGE_PROBE] = "probe"};

const char *e2b_stage_name(enum e2b_stage stage)
{
    if ((unsigned)stage >= E2B_STAGE_COUNT)
        log_panic("e2b_failure: stage %d", (int)stage);
    return stage_names[stage];
}

/* --- what an answer means -------------------------------------------------------------------------- */

/* The service's own error: {"code":…,"message":"…"}; code is an int, or a string for Connect. */
struct service_error {
    json_t *root;
    const char *message;
    bool is_service; /* it is that JSON, so the service itself answered */
};

static struct service_error parse_error(const struct http_answer *answer)
{
    struct service_error error = {0};
    json_t *code;

    error.root = json_loadb(answer->body, answer->body_length, 0, NULL);
    code = json_object_get(error.root, "code");
    error.message = json_string_value(json_object_get(error.root, "message"));
    error.is_service = error.message != NULL && (json_is_integer(code) || json_is_string(code));
    return error;
}

/* Of any status but 2xx. */
static enum e2b_failure classify_status(const struct http_answer *answer, const struct service_error *error)
{
    int status = answer->status;

    switch (status) {
    case 400:
        return E2B_400;
    case 401:
        return E2B_401;
    case 403:
        return error->is_service && strstr(error->message, "template") != NULL ? E2B_403_TEMPLATE : E2B_403;
    case 404:
        return error->is_service ? E2B_404 : E2B_404_FOREIGN;
    case 409:
        return E2B_409;
    case 429:
        return answer->retry_after_s >= 0 ? E2B_429_WAIT : E2B_429;
    case 500:
        return error->is_service ? E2B_500 : E2B_OTHER_5XX;
    case 502:
        if (error->is_service && strstr(error->message, "was not found") != NULL)
            return E2B_502_GONE;
        return error->is_service && strstr(error->message, "port is not open") != NULL ? E2B_502_PORT : E2B_502;
    case 503:
    case 504:
        return E2B_503_504;
    case 507: /* the sandbox's disk is full: trying again does not help */
        return E2B_OTHER_4XX;
    default:
        break;
    }
    if (status / 100 == 3)
        return E2B_3XX;
    return status / 100 == 4 ? E2B_OTHER_4XX : E2B_OTHER_5XX;
}

enum e2b_failure e2b_classify(const struct http_answer *answer)
{
    struct service_error error;
    enum e2b_failure failure;

    switch (answer->outcome) {
    case TRANSFER_ANSWERED:
        if (answer->status / 100 == 2) /* its body is not an error, and may be a file of many MiB */
            return E2B_SUCCESS;
        error = parse_error(answer);
        failure = classify_status(answer, &error);
        json_decref(error.root);
        return failure;
    case TRANSFER_NOT_CONNECTED:
        return E2B_NOT_CONNECTED;
    case TRANSFER_TLS_FAILED:
        return E2B_TLS_HANDSHAKE;
    case TRANSFER_TLS_UNTRUSTED:
        return E2B_TLS_CERTIFICATE;
    case TRANSFER_TIMED_OUT:
        return E2B_NO_ANSWER;
    case TRANSFER_CUT:
        return E2B_CUT;
    case TRANSFER_ANSWER_TOO_LARGE:
        return E2B_TOO_LARGE;
    case TRANSFER_INTERNAL:
        return E2B_OURS;
    default:
        log_panic("e2b_failure: outcome %d", (int)answer->outcome);
    }
}

/* --- the table ------------------------------------------------------------------------------------- */

#define F     .fate_unknown = true
#define PROBE .probe = true
#define TIMED E2B_TRIES_TIMED

#define CREATE(tries_, error_, ...) [E2B_STAGE_CREATE] = {.tries = tries_, .error = RUN_ERROR_##error_, __VA_ARGS__}
#define UPLOAD(tries_, error_, ...) [E2B_STAGE_UPLOAD] = {.tries = tries_, .error = RUN_ERROR_##error_, __VA_ARGS__}
#define START(tries_, error_, ...)  [E2B_STAGE_START] = {.tries = tries_, .error = RUN_ERROR_##error_, __VA_ARGS__}
#define SKIP(tries_)                [E2B_STAGE_READ] = {.tries = tries_, .error = RUN_ERROR_INTERNAL} /* the file is left out */
#define STOP(tries_)                [E2B_STAGE_READ] = {.tries = tries_, .error = RUN_ERROR_SANDBOX_LOST} /* and all others */

/* e2b.md A.4, column by column; a stage that a row leaves out cannot see that failure and gets one try, internal. */
static const struct e2b_verdict verdicts[E2B_FAILURE_COUNT][E2B_STAGE_PROBE] = {
    [E2B_NOT_CONNECTED] = {CREATE(3, SANDBOX_CREATE_FAILED), UPLOAD(3, UPLOAD_FAILED), START(3, AGENT_START_FAILED),
                           SKIP(2)},
    [E2B_TLS_HANDSHAKE] = {CREATE(3, SANDBOX_CREATE_FAILED), UPLOAD(3, UPLOAD_FAILED), START(3, AGENT_START_FAILED),
                           SKIP(2)},
    [E2B_TLS_CERTIFICATE] = {CREATE(1, SANDBOX_CREATE_FAILED), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED),
                             SKIP(1)},
    [E2B_NO_ANSWER] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(2, UPLOAD_FAILED), START(1, AGENT_START_FAILED),
                       SKIP(2)},
    [E2B_400] = {CREATE(1, SANDBOX_CREATE_FAILED), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_401] = {CREATE(1, E2B_AUTH), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_403] = {CREATE(1, E2B_AUTH), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_403_TEMPLATE] = {CREATE(1, TEMPLATE_NOT_FOUND), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED),
                          SKIP(1)},
    [E2B_404] = {CREATE(1, TEMPLATE_NOT_FOUND), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_409] = {CREATE(1, SANDBOX_CREATE_FAILED), UPLOAD(3, UPLOAD_FAILED), START(3, AGENT_START_FAILED), SKIP(3)},
    [E2B_429_WAIT] = {CREATE(TIMED, E2B_RATE_LIMITED), UPLOAD(3, E2B_RATE_LIMITED), START(3, E2B_RATE_LIMITED),
                      SKIP(2)},
    [E2B_429] = {CREATE(1, E2B_CAPACITY), UPLOAD(3, E2B_RATE_LIMITED), START(3, E2B_RATE_LIMITED), SKIP(2)},
    [E2B_500] = {CREATE(2, SANDBOX_CREATE_FAILED, F), UPLOAD(3, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(2)},
    [E2B_502_GONE] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(2, SANDBOX_LOST), START(2, SANDBOX_LOST), STOP(2)},
    [E2B_502_PORT] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(1, UPLOAD_FAILED), START(1, SANDBOX_LOST), STOP(1)},
    [E2B_502] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(2)},
    [E2B_503_504] = {CREATE(TIMED, E2B_CAPACITY, F), UPLOAD(3, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(2)},
    [E2B_OTHER_5XX] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(3, UPLOAD_FAILED), START(1, AGENT_START_FAILED),
                       SKIP(2)},
    [E2B_OTHER_4XX] = {CREATE(1, SANDBOX_CREATE_FAILED), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED),
                       SKIP(1)},
    [E2B_3XX] = {CREATE(1, UPSTREAM_PROTOCOL), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_404_FOREIGN] = {CREATE(1, UPSTREAM_PROTOCOL), UPLOAD(1, UPLOAD_FAILED), START(1, AGENT_START_FAILED), SKIP(1)},
    [E2B_CUT] = {CREATE(1, SANDBOX_CREATE_FAILED, F), UPLOAD(3, UPLOAD_FAILED, PROBE),
                 START(1, AGENT_START_FAILED, PROBE), SKIP(2)},
    [E2B_TOO_LARGE] = {CREATE(1, UPSTREAM_PROTOCOL, F), UPLOAD(1, UPSTREAM_PROTOCOL), START(1, UPSTREAM_PROTOCOL),
                       SKIP(1)},
    [E2B_OURS] = {CREATE(1, INTERNAL, F), UPLOAD(1, INTERNAL), START(1, INTERNAL), SKIP(1)},
};

static const struct e2b_verdict probe_gone = {.tries = 1, .error = RUN_ERROR_SANDBOX_LOST};
static const struct e2b_verdict probe_failed = {.tries = 1, .error = RUN_ERROR_INTERNAL};

const struct e2b_verdict *e2b_judge(enum e2b_stage stage, enum e2b_failure failure)
{
    if ((unsigned)stage >= E2B_STAGE_COUNT || failure == E2B_SUCCESS || (unsigned)failure >= E2B_FAILURE_COUNT)
        log_panic("e2b_failure: stage %d, failure %d", (int)stage, (int)failure);
    if (stage == E2B_STAGE_PROBE)
        return failure == E2B_502_GONE ? &probe_gone : &probe_failed;
    return &verdicts[failure][stage];
}

/* e2b.md A.5; every code that is not named is like the last. Nothing is sent again. */
static const struct e2b_rpc_verdict rpc_verdicts[] = {
    {"canceled", {.tries = 1, .error = RUN_ERROR_AGENT_START_FAILED, PROBE}, RUN_ERROR_SANDBOX_LOST},
    {"unavailable", {.tries = 1, .error = RUN_ERROR_AGENT_START_FAILED, PROBE}, RUN_ERROR_SANDBOX_LOST},
    {"resource_exhausted", {.tries = 1, .error = RUN_ERROR_E2B_RATE_LIMITED}, RUN_ERROR_UPSTREAM_PROTOCOL},
    {NULL, {.tries = 1, .error = RUN_ERROR_AGENT_START_FAILED}, RUN_ERROR_UPSTREAM_PROTOCOL},
};

const struct e2b_rpc_verdict *e2b_judge_rpc(const char *code)
{
    const struct e2b_rpc_verdict *verdict = rpc_verdicts;

    while (verdict->code != NULL && (code == NULL || strcmp(verdict->code, code) != 0))
        verdict++;
    return verdict;
}

const struct e2b_rpc_verdict *e2b_judge_rpc_answer(const struct http_answer *answer)
{
    struct service_error error;
    const struct e2b_rpc_verdict *verdict = NULL;
    const char *code;

    if (answer->outcome != TRANSFER_ANSWERED || answer->status / 100 == 2)
        return NULL;
    error = parse_error(answer);
    code = json_string_value(json_object_get(error.root, "code"));
    if (code != NULL)
        verdict = e2b_judge_rpc(code);
    json_decref(error.root);
    return verdict;
}

/* --- words ----------------------------------------------------------------------------------------- */

/* What was wrong when there was no whole answer. */
static const char *const outcome_texts[] = {
    [TRANSFER_NOT_CONNECTED] = "cannot reach the sandbox service",
    [TRANSFER_TLS_FAILED] = "cannot speak TLS with the sandbox service",
    [TRANSFER_TLS_UNTRUSTED] = "the certificate of the sandbox service is refused",
    [TRANSFER_TIMED_OUT] = "the sandbox service did not answer in time",
    [TRANSFER_CUT] = "the sandbox service closed the connection before its answer was complete",
    [TRANSFER_ANSWER_TOO_LARGE] = "the answer of the sandbox service is too large",
    [TRANSFER_INTERNAL] = "the request could not be made",
};

void e2b_message(const struct http_answer *answer, const char *api_key, char out[static E2B_MESSAGE_MAX_BYTES])
{
    struct service_error error = {0};

    if (answer->outcome != TRANSFER_ANSWERED) {
        snprintf(out, E2B_MESSAGE_MAX_BYTES, "%s: %s", outcome_texts[answer->outcome], answer->error);
    } else if (answer->status == 401) {
        snprintf(out, E2B_MESSAGE_MAX_BYTES, "401: Unauthorized, please check your credentials.");
    } else {
        error = parse_error(answer);
        snprintf(out, E2B_MESSAGE_MAX_BYTES, "%d: %s", answer->status,
                 error.is_service ? error.message : "unexpected answer from the sandbox service");
    }
    error_text_hide(out, api_key);
    error_text_clean(out);
    json_decref(error.root);
}

/* --- waiting --------------------------------------------------------------------------------------- */

/* Uniform in [low, high]; the modulo's bias is far below the jitter it serves. */
static int64_t random_between(int64_t low, int64_t high)
{
    uint32_t number = 0;

    if (getrandom(&number, sizeof number, 0) != (ssize_t)sizeof number)
        return high;
    return low + (int64_t)(number % (uint64_t)(high - low + 1));
}

int64_t e2b_backoff_ms(int next)
{
    int64_t base = next <= 2 ? RETRY_FIRST_MS : RETRY_LATER_MS;

    return random_between(base * (100 - RETRY_JITTER) / 100, base * (100 + RETRY_JITTER) / 100);
}

int64_t e2b_timed_backoff_ms(int next, int64_t retry_after_s)
{
    int64_t ceiling = TIMED_FIRST_MS;
    int64_t wait_ms;

    for (int i = 2; i < next && ceiling < TIMED_LARGEST_MS; i++)
        ceiling *= 2;
    wait_ms = random_between(0, ceiling < TIMED_LARGEST_MS ? ceiling : TIMED_LARGEST_MS);
    return wait_ms > retry_after_s * 1000 ? wait_ms : retry_after_s * 1000;
}
