/* The table of e2b.md A.4: what an answer means, and what each stage does about it. */
#include "tests/unit/unit.h"
#include "worker/e2b_failure.h"

#define JSON(code, message) "{\"code\":" #code ",\"message\":\"" message "\"}"

static const struct {
    int status;
    int64_t retry_after_s;
    const char *body;
    enum e2b_failure failure;
} answers[] = {
    {200, -1, "", E2B_SUCCESS},
    {201, -1, "{}", E2B_SUCCESS},
    {204, -1, "", E2B_SUCCESS},
    {302, -1, "", E2B_3XX},
    {400, -1, "", E2B_400},
    {401, -1, "", E2B_401},
    {403, -1, JSON(403, "team is blocked"), E2B_403},
    {403, -1, JSON(403, "you don't have access to template 'x'"), E2B_403_TEMPLATE},
    {404, -1, JSON(404, "template 'x' not found"), E2B_404},
    {404, -1, "{\"code\":\"not_found\",\"message\":\"no\"}", E2B_404},
    {404, -1, "<html>", E2B_404_FOREIGN},
    {409, -1, "", E2B_409},
    {418, -1, "", E2B_OTHER_4XX},
    {429, 3, "", E2B_429_WAIT},
    {429, -1, "", E2B_429},
    {500, -1, JSON(500, "Failed to place sandbox: x"), E2B_500},
    {500, -1, "oops", E2B_OTHER_5XX},
    {502, -1, JSON(502, "The sandbox was not found"), E2B_502_GONE},
    {502, -1, JSON(502, "The sandbox is running but port is not open"), E2B_502_PORT},
    {502, -1, "Failed to route request to sandbox", E2B_502},
    {502, -1, JSON(502, "something else"), E2B_502},
    {503, -1, "", E2B_503_504},
    {504, -1, "", E2B_503_504},
    {507, -1, "", E2B_OTHER_4XX},
    {599, -1, "", E2B_OTHER_5XX},
};

static void test_answers_are_told_apart(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(answers); i++) {
        const struct http_answer answer = {.outcome = TRANSFER_ANSWERED,
                                           .status = answers[i].status,
                                           .retry_after_s = answers[i].retry_after_s,
                                           .body = answers[i].body,
                                           .body_length = strlen(answers[i].body)};

        if (e2b_classify(&answer) != answers[i].failure)
            fail_msg("%d %s is failure %d", answers[i].status, answers[i].body, (int)e2b_classify(&answer));
    }
}

/* tries, code, probe, fate unknown: for create, upload, start, as e2b.md A.4 writes them. */
struct row {
    enum e2b_failure failure;
    struct {
        int tries;
        const char *code;
        bool probe, fate_unknown;
    } stages[3];
    int read_tries;
};

#define T E2B_TRIES_TIMED
#define C "sandbox_create_failed"
#define U "upload_failed"
#define S "agent_start_failed"

static const struct row rows[] = {
    {E2B_NOT_CONNECTED, {{3, C, 0, 0}, {3, U, 0, 0}, {3, S, 0, 0}}, 2},
    {E2B_TLS_HANDSHAKE, {{3, C, 0, 0}, {3, U, 0, 0}, {3, S, 0, 0}}, 2},
    {E2B_TLS_CERTIFICATE, {{1, C, 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_NO_ANSWER, {{1, C, 0, 1}, {2, U, 0, 0}, {1, S, 0, 0}}, 2},
    {E2B_400, {{1, C, 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_401, {{1, "e2b_auth", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_403, {{1, "e2b_auth", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_403_TEMPLATE, {{1, "template_not_found", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_404, {{1, "template_not_found", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_409, {{1, C, 0, 0}, {3, U, 0, 0}, {3, S, 0, 0}}, 3},
    {E2B_429_WAIT, {{T, "e2b_rate_limited", 0, 0}, {3, "e2b_rate_limited", 0, 0}, {3, "e2b_rate_limited", 0, 0}}, 2},
    {E2B_429, {{1, "e2b_capacity", 0, 0}, {3, "e2b_rate_limited", 0, 0}, {3, "e2b_rate_limited", 0, 0}}, 2},
    {E2B_500, {{2, C, 0, 1}, {3, U, 0, 0}, {1, S, 0, 0}}, 2},
    {E2B_502_GONE, {{1, C, 0, 1}, {2, "sandbox_lost", 0, 0}, {2, "sandbox_lost", 0, 0}}, 2},
    {E2B_502_PORT, {{1, C, 0, 1}, {1, U, 0, 0}, {1, "sandbox_lost", 0, 0}}, 1},
    {E2B_502, {{1, C, 0, 1}, {1, U, 0, 0}, {1, S, 0, 0}}, 2},
    {E2B_503_504, {{T, "e2b_capacity", 0, 1}, {3, U, 0, 0}, {1, S, 0, 0}}, 2},
    {E2B_OTHER_5XX, {{1, C, 0, 1}, {3, U, 0, 0}, {1, S, 0, 0}}, 2},
    {E2B_OTHER_4XX, {{1, C, 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_3XX, {{1, "upstream_protocol", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_404_FOREIGN, {{1, "upstream_protocol", 0, 0}, {1, U, 0, 0}, {1, S, 0, 0}}, 1},
    {E2B_CUT, {{1, C, 0, 1}, {3, U, 1, 0}, {1, S, 1, 0}}, 2},
    {E2B_TOO_LARGE,
     {{1, "upstream_protocol", 0, 1}, {1, "upstream_protocol", 0, 0}, {1, "upstream_protocol", 0, 0}},
     1},
    {E2B_OURS, {{1, "internal", 0, 1}, {1, "internal", 0, 0}, {1, "internal", 0, 0}}, 1},
};

static void test_each_stage_does_what_the_table_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (int stage = 0; stage < 3; stage++) {
            const struct e2b_verdict *verdict = e2b_judge((enum e2b_stage)stage, rows[i].failure);

            if (verdict->tries != rows[i].stages[stage].tries ||
                strcmp(run_error_code(verdict->error), rows[i].stages[stage].code) != 0 ||
                verdict->probe != rows[i].stages[stage].probe ||
                verdict->fate_unknown != rows[i].stages[stage].fate_unknown)
                fail_msg("failure %d at stage %d: %d tries, %s", (int)rows[i].failure, stage, verdict->tries,
                         run_error_code(verdict->error));
        }
        assert_int_equal(e2b_judge(E2B_STAGE_READ, rows[i].failure)->tries, rows[i].read_tries);
    }
}

static void test_a_gone_sandbox_is_lost_and_a_probe_has_one_try(void **state)
{
    (void)state;
    assert_int_equal(e2b_judge(E2B_STAGE_UPLOAD, E2B_502_GONE)->error, RUN_ERROR_SANDBOX_LOST);
    assert_int_equal(e2b_judge(E2B_STAGE_START, E2B_502_PORT)->error, RUN_ERROR_SANDBOX_LOST);
    assert_int_equal(e2b_judge(E2B_STAGE_PROBE, E2B_502_GONE)->error, RUN_ERROR_SANDBOX_LOST);
    assert_int_equal(e2b_judge(E2B_STAGE_PROBE, E2B_CUT)->error, RUN_ERROR_INTERNAL);
    assert_int_equal(e2b_judge(E2B_STAGE_PROBE, E2B_503_504)->tries, 1);
}

#define KEY "e2b_0123456789abcdef"

static void expect_message(int status, const char *body, const char *wanted)
{
    const struct http_answer answer = {
        .outcome = TRANSFER_ANSWERED, .status = status, .body = body, .body_length = strlen(body), .error = ""};
    char message[E2B_MESSAGE_MAX_BYTES];

    e2b_message(&answer, KEY, message);
    assert_string_equal(message, wanted);
}

static void test_connect_errors_mean_what_a5_says(void **state)
{
    static const struct {
        const char *code, *before, *after;
        bool probe;
    } codes[] = {
        {"canceled", S, "sandbox_lost", true},
        {"unavailable", S, "sandbox_lost", true},
        {"resource_exhausted", "e2b_rate_limited", "upstream_protocol", false},
        {"deadline_exceeded", S, "upstream_protocol", false},
        {"no_such_code", S, "upstream_protocol", false},
        {NULL, S, "upstream_protocol", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(codes); i++) {
        const struct e2b_rpc_verdict *verdict = e2b_judge_rpc(codes[i].code);

        assert_string_equal(run_error_code(verdict->before_start.error), codes[i].before);
        assert_string_equal(run_error_code(verdict->after_start), codes[i].after);
        assert_int_equal(verdict->before_start.probe, codes[i].probe);
        assert_int_equal(verdict->before_start.tries, 1);
    }
}

static const struct e2b_rpc_verdict *rpc_of(enum transfer_outcome outcome, int status, const char *body)
{
    const struct http_answer answer = {
        .outcome = outcome, .status = status, .body = body, .body_length = strlen(body), .error = ""};

    return e2b_judge_rpc_answer(&answer);
}

static void test_only_a_string_code_is_a_connect_error(void **state)
{
    (void)state;
    assert_ptr_equal(rpc_of(TRANSFER_ANSWERED, 503, "{\"code\":\"unavailable\",\"message\":\"x\"}"),
                     e2b_judge_rpc("unavailable"));
    assert_ptr_equal(rpc_of(TRANSFER_ANSWERED, 400, "{\"code\":\"unavailable\"}"), e2b_judge_rpc("unavailable"));
    assert_null(rpc_of(TRANSFER_ANSWERED, 409, JSON(409, "The sandbox is still transitioning")));
    assert_null(rpc_of(TRANSFER_ANSWERED, 503, "<html>"));
    assert_null(rpc_of(TRANSFER_ANSWERED, 200, "{\"code\":\"unavailable\"}"));
    assert_null(rpc_of(TRANSFER_CUT, 503, "{\"code\":\"unavailable\"}"));
}

static void test_messages_are_one_line_in_the_services_words(void **state)
{
    (void)state;
    expect_message(401, JSON(401, "Invalid API key e2b_secret"), "401: Unauthorized, please check your credentials.");
    expect_message(404, JSON(404, "template 'x' not found"), "404: template 'x' not found");
    expect_message(400, JSON(400, "two\\nlines"), "400: two lines");
    expect_message(403, JSON(403, "team of " KEY " at https://u:p@host/x"), "403: team of *** at https://host/x");
    expect_message(500, "<html>secret</html>", "500: unexpected answer from the sandbox service");
}

static void test_waits_stay_in_their_bounds(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        assert_in_range(e2b_backoff_ms(2), 175, 325);
        assert_in_range(e2b_backoff_ms(3), 700, 1300);
        assert_in_range(e2b_timed_backoff_ms(2, -1), 0, 500);
        assert_in_range(e2b_timed_backoff_ms(3, -1), 0, 1000);
        assert_in_range(e2b_timed_backoff_ms(20, -1), 0, 8000);
        assert_in_range(e2b_timed_backoff_ms(2, 7), 7000, 7000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_told_apart),
        cmocka_unit_test(test_each_stage_does_what_the_table_says),
        cmocka_unit_test(test_a_gone_sandbox_is_lost_and_a_probe_has_one_try),
        cmocka_unit_test(test_connect_errors_mean_what_a5_says),
        cmocka_unit_test(test_only_a_string_code_is_a_connect_error),
        cmocka_unit_test(test_messages_are_one_line_in_the_services_words),
        cmocka_unit_test(test_waits_stay_in_their_bounds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
