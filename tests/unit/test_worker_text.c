/* What is read from an agent's output: stderr texts (5.4), terminal lines (5.9), UTF-8. */
#include "tests/unit/unit.h"
#include "worker/agent_report.h"
#include "worker/stderr_text.h"
#include "worker/utf8.h"

static void expect_event(json_t *event, const char *wanted)
{
    char *text = event != NULL ? json_dumps(event, JSON_COMPACT) : NULL;

    if (wanted == NULL)
        assert_null(text);
    else
        assert_string_equal(text, wanted);
    free(text);
    json_decref(event);
}

static void put(struct stderr_text *text, const char *bytes)
{
    assert_true(stderr_text_append(text, bytes, strlen(bytes)));
}

static void test_complete_lines_become_one_event_and_the_rest_waits(void **state)
{
    struct stderr_text text = {0};

    (void)state;
    put(&text, "  one\ntwo\nthr");
    expect_event(stderr_text_take_lines(&text), "{\"type\":\"stderr\",\"data\":\"one\\ntwo\"}");
    expect_event(stderr_text_take_lines(&text), NULL);
    put(&text, "ee\n \t\n");
    expect_event(stderr_text_take_lines(&text), "{\"type\":\"stderr\",\"data\":\"three\"}");
    put(&text, " \n\n");
    expect_event(stderr_text_take_lines(&text), NULL);
    put(&text, "end");
    expect_event(stderr_text_take_all(&text), "{\"type\":\"stderr\",\"data\":\"end\"}");
    expect_event(stderr_text_take_all(&text), NULL);
    stderr_text_release(&text);
}

static void test_a_rest_is_never_cut_inside_a_character(void **state)
{
    struct stderr_text text = {0};

    (void)state;
    put(&text, "a\xe2\x9c");
    expect_event(stderr_text_take_rest(&text), "{\"type\":\"stderr\",\"data\":\"a\"}");
    assert_null(stderr_text_take_rest(&text));
    put(&text, "\x93");
    expect_event(stderr_text_take_rest(&text), "{\"type\":\"stderr\",\"data\":\"\xe2\x9c\x93\"}");
    put(&text, "\xff");
    expect_event(stderr_text_take_all(&text), "{\"type\":\"stderr\",\"data\":\"\xef\xbf\xbd\"}");
    stderr_text_release(&text);
}

static void test_a_long_rest_does_not_wait(void **state)
{
    struct stderr_text text = {0};
    static char rest[STDERR_REST_MAX_BYTES + 1];
    json_t *event;

    (void)state;
    memset(rest, 'x', sizeof rest - 1);
    put(&text, rest);
    event = stderr_text_take_lines(&text);
    assert_int_equal(json_string_length(json_object_get(event, "data")), STDERR_REST_MAX_BYTES);
    json_decref(event);
    stderr_text_release(&text);
}

static const struct {
    const char *line;
    enum agent_ending ending;
} lines[] = {
    {"{\"type\":\"result\",\"subtype\":\"success\"}", AGENT_SUCCEEDED},
    {" {\"subtype\":\"success\",\"is_error\":false,\"type\":\"result\"} \r", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":true}", AGENT_FAILED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":\"true\"}", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"subtype\":\"error_max_turns\"}", AGENT_FAILED},
    {"{\"type\":\"result\"}", AGENT_FAILED},
    {"{\"type\":\"r\\u0065sult\",\"subtype\":\"success\"}", AGENT_SUCCEEDED},
    {"{\"t\\u0079pe\":\"result\",\"subtype\":\"success\"}", AGENT_SUCCEEDED},
    {"{\"type\":\"assistant\",\"type\":\"result\",\"subtype\":\"success\"}", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"type\":\"assistant\"}", AGENT_NOT_ENDED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"n\":123456789012345678901234567890}", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"cut \\ud83d\"}", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"\\u0000\":\"\\u0000\"}", AGENT_SUCCEEDED},
    {"{\"type\":\"result\",\"subtype\":\"success\",\"result\":\"\xff\"}", AGENT_NOT_ENDED},
    {"{\"type\":\"error\",\"error\":\"x\"}", AGENT_ERROR},
    {"{\"type\":\"assistant\",\"message\":{\"type\":\"result\"}}", AGENT_NOT_ENDED},
    {"{\"type\":[\"result\"]}", AGENT_NOT_ENDED},
    {"[{\"type\":\"result\"}]", AGENT_NOT_ENDED},
    {"\"result\"", AGENT_NOT_ENDED},
    {"{\"type\":\"result\"", AGENT_NOT_ENDED},
    {"{\"type\":\"result\"}x", AGENT_NOT_ENDED},
};

static enum agent_line read_line(struct agent_report *report, const char *line)
{
    return agent_report_read(report, line, strlen(line));
}

static void test_only_a_top_level_type_ends_an_agent(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(lines); i++) {
        struct agent_report report;
        enum agent_line kind;

        agent_report_init(&report);
        kind = read_line(&report, lines[i].line);
        if (report.ending != lines[i].ending || (kind == AGENT_LINE_TERMINAL) != (lines[i].ending != AGENT_NOT_ENDED))
            fail_msg("%s: ending %d", lines[i].line, (int)report.ending);
        agent_report_release(&report);
    }
}

static void test_the_last_result_is_the_record(void **state)
{
    struct agent_report report;

    (void)state;
    agent_report_init(&report);
    read_line(&report, "{\"type\":\"error\",\"error\":\"first\"}");
    assert_string_equal(report.error, "first");
    read_line(&report, "{\"type\":\"result\",\"subtype\":\"error_max_turns\",\"total_cost_usd\":1.5,\"num_turns\":2}");
    assert_int_equal(report.ending, AGENT_FAILED);
    assert_null(report.error);
    assert_string_equal(report.subtype, "error_max_turns");
    read_line(&report, "{\"type\":\"result\",\"subtype\":\"success\",\"cost_usd\":0,\"num_turns\":\"x\"}");
    assert_int_equal(report.ending, AGENT_SUCCEEDED);
    assert_true(report.has_cost && report.cost_usd == 0);
    assert_int_equal(report.num_turns, 2);
    assert_string_equal(report.subtype, "success");
    agent_report_release(&report);
}

static void test_the_first_line_tells_model_and_session(void **state)
{
    struct agent_report report;

    (void)state;
    agent_report_init(&report);
    assert_int_equal(read_line(&report, "{\"type\":\"system\",\"subtype\":\"status\",\"model\":\"no\",\"x\":\"init\"}"),
                     AGENT_LINE_PLAIN);
    assert_int_equal(
        read_line(&report, "{\"session_id\":\"s-1\",\"model\":\"m\\u00e9\",\"subtype\":\"init\",\"type\":\"system\"}"),
        AGENT_LINE_INIT);
    assert_string_equal(report.model, "m\xc3\xa9");
    assert_string_equal(report.session_id, "s-1");
    read_line(&report, "{\"type\":\"system\",\"subtype\":\"init\",\"model\":7}");
    assert_string_equal(report.model, "m\xc3\xa9");
    assert_int_equal(report.ending, AGENT_NOT_ENDED);
    agent_report_release(&report);
}

static void test_texts_are_cut_between_characters(void **state)
{
    char line[3 * AGENT_ERROR_MAX_BYTES];
    struct agent_report report;
    size_t used = (size_t)snprintf(line, sizeof line, "{\"type\":\"error\",\"error\":\"x");

    (void)state;
    for (size_t i = 0; i < AGENT_ERROR_MAX_BYTES; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "\xc3\xa9");
    snprintf(line + used, sizeof line - used, "\"}");
    agent_report_init(&report);
    read_line(&report, line);
    assert_int_equal(strlen(report.error), AGENT_ERROR_MAX_BYTES - 1);
    assert_true(utf8_is_valid(report.error, strlen(report.error)));
    agent_report_release(&report);
}

static void test_utf8_is_judged_by_the_standard(void **state)
{
    static const char *const valid[] = {"", "abc", "\xc3\xa9", "\xe2\x9c\x93", "\xf0\x9f\x99\x82", "\xf4\x8f\xbf\xbf"};
    static const char *const invalid[] = {
        "\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80",
        "\xff", "a\xe2\x9c"};

    (void)state;
    for (size_t i = 0; i < COUNT(valid); i++)
        assert_true(utf8_is_valid(valid[i], strlen(valid[i])));
    for (size_t i = 0; i < COUNT(invalid); i++)
        assert_false(utf8_is_valid(invalid[i], strlen(invalid[i])));
    assert_int_equal(utf8_count_code_points("a\xc3\xa9\xf0\x9f\x99\x82", 7), 3);
    assert_int_equal(utf8_prefix("a\xc3\xa9\xf0\x9f\x99\x82", 7, 2), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_complete_lines_become_one_event_and_the_rest_waits),
        cmocka_unit_test(test_a_rest_is_never_cut_inside_a_character),
        cmocka_unit_test(test_a_long_rest_does_not_wait),
        cmocka_unit_test(test_only_a_top_level_type_ends_an_agent),
        cmocka_unit_test(test_the_last_result_is_the_record),
        cmocka_unit_test(test_the_first_line_tells_model_and_session),
        cmocka_unit_test(test_texts_are_cut_between_characters),
        cmocka_unit_test(test_utf8_is_judged_by_the_standard),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
