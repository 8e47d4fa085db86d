/*
 * The engine of tries with the HTTP client replaced: the rows of e2b.md A.4 that would take minutes against a server or
 * need TLS after the sandbox was made, the time limits of A.1, and what is never sent again.
 */
#include "tests/unit/unit.h"

#include "tests/unit/replaced_http.h"
#include "tests/unit/timers.h"
#include "worker/agent_stream.h"
#include "worker/connect_rpc.h"
#include "worker/e2b_call.h"
#include "worker/utf8.h"

#define MIB 1048576

/* --- the world ----------------------------------------------------------------------------------------- */

static struct {
    struct event_base *base;
    struct e2b_context e2b;
    struct e2b_service service;
    struct e2b_sandbox sandbox;
    int ends; /* results told */
    struct e2b_result result;
    char message[E2B_MESSAGE_MAX_BYTES];
    struct e2b_sandbox *made;
    int again;
} world;

void http_transfer_pause(struct http_transfer *transfer)
{
    (void)transfer;
}

void http_transfer_resume(struct http_transfer *transfer)
{
    (void)transfer;
}

const char *http_transfer_content_type(const struct http_transfer *transfer)
{
    (void)transfer;
    return "application/connect+json";
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    memset(&http, 0, sizeof http);
    world.base = event_base_new();
    world.service = (struct e2b_service){.references = 1,
                                         .api_url = "http://api",
                                         .sandbox_url = "http://sandbox",
                                         .domain = "",
                                         .api_key = "e2b_0123456789"};
    world.sandbox = (struct e2b_sandbox){.id = "i1", .access_token = "token0123456789", .base_url = "http://sandbox"};
    world.e2b = (struct e2b_context){.base = world.base, .service = &world.service};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    event_base_free(world.base);
    assert_int_equal(world.service.references, 1);
    return 0;
}

static void tell(const struct e2b_result *result)
{
    world.ends++;
    world.result = *result;
    snprintf(world.message, sizeof world.message, "%s", result->message);
}

/* --- operations ---------------------------------------------------------------------------------------- */

static void on_created(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    (void)context;
    world.made = sandbox;
    tell(result);
}

static struct e2b_call *create(void)
{
    json_t *env = json_object();
    const struct e2b_create_request request = {.template_id = "t",
                                               .timeout_s = 60,
                                               .env = env,
                                               .run_id = "r",
                                               .instance = "i",
                                               .retry_timeout_ms = 30000,
                                               .on_created = on_created};
    struct e2b_call *call = e2b_create(&world.e2b, &request);

    json_decref(env);
    assert_non_null(call);
    return call;
}

static void on_uploaded(void *context, const struct e2b_result *result)
{
    (void)context;
    tell(result);
}

static void upload(void)
{
    static char bytes[3 * MIB];
    static const struct e2b_file file = {.path = "/home/user/a", .bytes = bytes, .length = sizeof bytes};

    assert_non_null(e2b_upload(&world.e2b, &world.sandbox, &file, 1, on_uploaded, NULL));
}

static void on_start(void *context, int64_t pid)
{
    (void)context;
    (void)pid;
    fail_msg("the process started");
}

static void on_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    (void)context;
    (void)is_stderr;
    (void)bytes;
    (void)length;
}

static void on_output_end(void *context)
{
    (void)context;
}

static void on_exit_code(void *context, int exit_code, const char *status)
{
    (void)context;
    fail_msg("the process ended: %d %s", exit_code, status);
}

static struct agent_stream *stream;

static void on_lost(void *context, enum run_error error, const char *message)
{
    const struct e2b_result result = {.error = error, .message = message};

    (void)context;
    tell(&result);
    agent_stream_cancel(stream);
    stream = NULL;
}

static void start(void)
{
    const struct agent_stream_request request = {.command = "true",
                                                 .start_timeout_ms = 60000,
                                                 .idle_timeout_ms = 150000,
                                                 .handlers = {.on_start = on_start,
                                                              .on_output = on_output,
                                                              .on_output_end = on_output_end,
                                                              .on_exit = on_exit_code,
                                                              .on_lost = on_lost}};

    stream = agent_stream_open(&world.e2b, &world.sandbox, &request);
    assert_non_null(stream);
}

static void on_bytes(void *context, const char *bytes, size_t length)
{
    (void)context;
    (void)bytes;
    (void)length;
}

static void on_again(void *context)
{
    (void)context;
    world.again++;
}

static void on_read(void *context, const struct e2b_result *result)
{
    (void)context;
    tell(result);
}

static void read_file(void)
{
    const struct e2b_read_request request = {.path = "/home/user/a",
                                             .limit_bytes = 25 * MIB,
                                             .on_bytes = on_bytes,
                                             .on_again = on_again,
                                             .on_read = on_read};

    assert_non_null(e2b_read(&world.e2b, &world.sandbox, &request));
}

static void begin(enum e2b_stage stage)
{
    switch (stage) {
    case E2B_STAGE_CREATE:
        (void)create();
        break;
    case E2B_STAGE_UPLOAD:
        upload();
        break;
    case E2B_STAGE_START:
        start();
        break;
    case E2B_STAGE_READ:
        read_file();
        break;
    case E2B_STAGE_PROBE:
    case E2B_STAGE_COUNT:
    default:
        fail_msg("no stage %d", (int)stage);
    }
}

static void answered(enum transfer_outcome outcome, int status, const char *body)
{
    const struct http_answer answer = {.outcome = outcome,
                                       .status = status,
                                       .retry_after_s = -1,
                                       .content_type = "",
                                       .body = body,
                                       .body_length = strlen(body),
                                       .error = "why"};

    http.request.on_done(http.request.context, &answer);
    event_base_loop(world.base, EVLOOP_NONBLOCK);
}

/* The timer of the next try; a stream has another one, for its silence. */
static bool next_try(void)
{
    int sent = http.sent;

    if (world.ends > 0)
        return false;
    fire_shortest_timer(world.base);
    assert_int_equal(http.sent, sent + 1);
    return true;
}

/* --- the rows ------------------------------------------------------------------------------------------ */

#define C "sandbox_create_failed"
#define U "upload_failed"
#define S "agent_start_failed"

static const struct {
    enum transfer_outcome outcome;
    struct {
        const char *code;
        int tries;
        bool fate_unknown;
    } stages[4]; /* create, upload, start, read */
} rows[] = {
    {TRANSFER_NOT_CONNECTED, {{C, 3, false}, {U, 3, false}, {S, 3, false}, {"internal", 2, false}}},
    {TRANSFER_TLS_FAILED, {{C, 3, false}, {U, 3, false}, {S, 3, false}, {"internal", 2, false}}},
    {TRANSFER_TLS_UNTRUSTED, {{C, 1, false}, {U, 1, false}, {S, 1, false}, {"internal", 1, false}}},
    {TRANSFER_TIMED_OUT, {{C, 1, true}, {U, 2, false}, {S, 1, false}, {"internal", 2, false}}},
    {TRANSFER_INTERNAL,
     {{"internal", 1, true}, {"internal", 1, false}, {"internal", 1, false}, {"internal", 1, false}}},
};

static void check_cell(size_t row, enum e2b_stage stage)
{
    http.sent = world.ends = world.again = 0;
    begin(stage);
    do
        answered(rows[row].outcome, 0, "");
    while (next_try());
    assert_int_equal(world.ends, 1);
    assert_string_equal(run_error_code(world.result.error), rows[row].stages[stage].code);
    assert_int_equal(http.sent, rows[row].stages[stage].tries);
    assert_int_equal(world.result.fate_unknown, rows[row].stages[stage].fate_unknown);
    assert_int_equal(world.again, stage == E2B_STAGE_READ ? http.sent - 1 : 0);
    assert_non_null(strstr(world.message, ": why"));
}

static void test_each_failure_has_its_tries_and_its_code(void **state)
{
    (void)state;
    for (size_t row = 0; row < COUNT(rows); row++) {
        for (int stage = E2B_STAGE_CREATE; stage <= E2B_STAGE_READ; stage++)
            check_cell(row, (enum e2b_stage)stage);
    }
}

/* --- time limits: e2b.md A.1 --------------------------------------------------------------------------- */

static void test_the_time_limits_of_each_transfer(void **state)
{
    static const struct {
        int64_t total_ms, stall_ms;
        bool once;
    } limits[] = {
        [E2B_STAGE_CREATE] = {90000, 0, true},
        [E2B_STAGE_UPLOAD] = {63000, 30000, false}, /* 3 MiB */
        [E2B_STAGE_START] = {0, 0, true},
        [E2B_STAGE_READ] = {85000, 30000, false}, /* at most 25 MiB */
    };

    (void)state;
    for (int stage = E2B_STAGE_CREATE; stage <= E2B_STAGE_READ; stage++) {
        begin((enum e2b_stage)stage);
        assert_int_equal(http.request.total_timeout_ms, limits[stage].total_ms);
        assert_int_equal(http.request.stall_timeout_ms, limits[stage].stall_ms);
        assert_int_equal(http.request.send_once, limits[stage].once);
        answered(TRANSFER_TLS_UNTRUSTED, 0, "");
    }
}

/* --- creates ------------------------------------------------------------------------------------------- */

static void test_an_early_failure_keeps_the_fate_unknown(void **state)
{
    (void)state;
    (void)create();
    answered(TRANSFER_ANSWERED, 503, "");
    assert_true(next_try());
    answered(TRANSFER_ANSWERED, 401, "");
    assert_string_equal(run_error_code(world.result.error), "e2b_auth");
    assert_true(world.result.fate_unknown);
}

static void test_a_success_after_a_failure_may_have_made_two(void **state)
{
    (void)state;
    (void)create();
    answered(TRANSFER_ANSWERED, 500, "{\"code\":500,\"message\":\"x\"}");
    assert_true(next_try());
    answered(TRANSFER_ANSWERED, 201, "{\"sandboxID\":\"i2\"}");
    assert_string_equal(world.made->id, "i2");
    assert_true(world.result.fate_unknown);
    e2b_sandbox_free(world.made);
}

static void test_a_create_whose_run_ended_is_awaited_and_not_sent_again(void **state)
{
    struct e2b_call *call;

    (void)state;
    call = create();
    e2b_create_abandon(call, on_created, NULL);
    assert_int_equal(world.ends + http.cancelled, 0);
    answered(TRANSFER_ANSWERED, 503, "");
    assert_int_equal(world.ends, 1);
    assert_int_equal(http.sent, 1);
    assert_true(world.result.fate_unknown);
}

static void test_a_create_whose_run_ended_between_tries_ends_at_once(void **state)
{
    struct e2b_call *call;

    (void)state;
    call = create();
    answered(TRANSFER_ANSWERED, 503, "");
    e2b_create_abandon(call, on_created, NULL);
    assert_int_equal(world.ends, 1);
    assert_true(world.result.fate_unknown);
}

/* --- counting ------------------------------------------------------------------------------------------ */

static uint64_t counted(const struct scoreboard *scoreboard, const char *status, enum metric_operation operation)
{
    char value[METRICS_LABEL_MAX_BYTES];
    uint64_t totals[METRICS_COLUMNS_MAX] = {0};
    size_t length;

    for (unsigned row = 0; row < METRICS_LABELS_MAX; row++) {
        if (!metrics_row(scoreboard, METRIC_LABEL_STATUS, row, value, &length) || length != strlen(status) ||
            memcmp(value, status, length) != 0)
            continue;
        metrics_read(scoreboard, METRIC_SANDBOX_CALLS, row, totals);
        break;
    }
    return totals[operation];
}

static void test_each_try_is_counted_once(void **state)
{
    struct scoreboard *scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 1, .run_history = 1}, NULL);

    (void)state;
    assert_non_null(scoreboard);
    metrics_open(scoreboard, scoreboard_take_slot(scoreboard, 1));
    (void)create();
    answered(TRANSFER_ANSWERED, 503, "");
    assert_true(next_try());
    answered(TRANSFER_CUT, 200, ""); /* a status line came, but no answer */
    start();
    http.request.on_body(http.request.context, "", 0); /* a stream is counted when it begins, not again at its end */
    assert_int_equal(counted(scoreboard, "200", METRIC_OPERATION_START), 1);
    http.request.on_body(http.request.context, "", 0);
    answered(TRANSFER_CUT, 200, "");
    answered(TRANSFER_ANSWERED, 204, ""); /* the probe: is the sandbox gone? */
    assert_int_equal(counted(scoreboard, "204", METRIC_OPERATION_PROBE), 1);
    e2b_call_cancel(create());
    assert_int_equal(counted(scoreboard, "503", METRIC_OPERATION_CREATE), 1);
    assert_int_equal(counted(scoreboard, "cut", METRIC_OPERATION_CREATE), 1);
    assert_int_equal(counted(scoreboard, "cancelled", METRIC_OPERATION_CREATE), 1);
    assert_int_equal(metrics_total(scoreboard, METRIC_SANDBOX_CALLS, METRIC_OPERATION_CREATE), 3);
    assert_int_equal(metrics_total(scoreboard, METRIC_SANDBOX_CALLS, METRIC_OPERATION_START), 1);
    assert_int_equal(metrics_total(scoreboard, METRIC_SANDBOX_RETRIES, METRIC_OPERATION_CREATE), 1);
    metrics_open(NULL, 0);
    scoreboard_free(scoreboard);
}

/* --- start --------------------------------------------------------------------------------------------- */

static void test_the_wait_for_a_next_start_is_no_silence(void **state)
{
    int64_t left_ms;

    (void)state;
    timers_begin();
    start();
    answered(TRANSFER_ANSWERED, 429, "");
    left_ms = fire_longest_timer(world.base); /* the silence timer fires while the next try waits */
    assert_wait(left_ms, 50000, 60000);
    assert_int_equal(world.ends, 0);
    assert_true(next_try());
    answered(TRANSFER_TLS_UNTRUSTED, 0, "");
    assert_int_equal(world.ends, 1);
}

/* The code of an error is cut between its characters, like all text. */
static void test_a_long_code_of_a_stream_is_cut_between_characters(void **state)
{
    static const char payload[] = "{\"error\":{\"code\":"
                                  "\"x\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                  "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9"
                                  "\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3"
                                  "\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\xc3\xa9\","
                                  "\"message\":\"m\"}}";
    char bytes[CONNECT_HEADER_BYTES + sizeof payload] = {CONNECT_FLAG_END, 0, 0, 0, sizeof payload - 1};

    (void)state;
    memcpy(bytes + CONNECT_HEADER_BYTES, payload, sizeof payload);
    start();
    http.request.on_body(http.request.context, bytes, sizeof bytes - 1);
    event_base_loop(world.base, EVLOOP_NONBLOCK);
    assert_int_equal(world.ends, 1);
    assert_int_equal(strcspn(world.message, ":"), 1 + 2 * 29);
    assert_true(utf8_is_valid(world.message, strlen(world.message)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_failure_has_its_tries_and_its_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_time_limits_of_each_transfer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_early_failure_keeps_the_fate_unknown, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_success_after_a_failure_may_have_made_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_create_whose_run_ended_is_awaited_and_not_sent_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_create_whose_run_ended_between_tries_ends_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_try_is_counted_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_wait_for_a_next_start_is_no_silence, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_long_code_of_a_stream_is_cut_between_characters, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
