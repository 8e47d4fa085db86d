/* Lines of the access log: both formats, outside text of every kind, and what never gets into one. */
#include "tests/unit/unit.h"
#include "worker/access_line.h"

#include <jansson.h>

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static struct access_facts request(void)
{
    struct access_facts facts = {.started_us = 1769853600123456, .duration_us = 12345678, .status = 200, .bytes = 5120};

    snprintf(facts.client, sizeof facts.client, "203.0.113.9");
    access_text_set(&facts.method, span_of("POST"));
    access_text_set(&facts.path, access_path(span_of("/query?key=secret")));
    access_text_set(&facts.user_agent, span_of("httpx/0.28"));
    facts.is_complete = true;
    return facts;
}

static struct access_facts request_of_run(void)
{
    struct access_facts facts = request();

    access_facts_run(&facts, &(struct access_run){.id = "00ff00ff00ff00ff",
                                                  .state = "error",
                                                  .error_code = "agent_exit",
                                                  .first_event_ms = 1250,
                                                  .sandbox_id = "i3x",
                                                  .model = "claude-sonnet-4-5"});
    facts.events = 42;
    return facts;
}

/* The line without its end; valid until the next call. */
static const char *line_of(const struct access_facts *facts, enum access_log_format format)
{
    static char line[ACCESS_LINE_MAX_BYTES + 1];
    size_t length = access_line_format(facts, format, line);

    assert_in_range(length, 2, ACCESS_LINE_MAX_BYTES);
    line[length] = '\0';
    assert_ptr_equal(strchr(line, '\n'), line + length - 1);
    line[length - 1] = '\0';
    return line;
}

static json_t *json_of(const struct access_facts *facts)
{
    json_error_t error;
    json_t *json = json_loads(line_of(facts, ACCESS_LOG_JSON), JSON_REJECT_DUPLICATES, &error);

    if (json == NULL)
        fail_msg("%s: %s", error.text, line_of(facts, ACCESS_LOG_JSON));
    return json;
}

static void assert_member(const struct access_facts *facts, const char *key, const char *value)
{
    json_t *json = json_of(facts);

    assert_string_equal(json_string_value(json_object_get(json, key)), value);
    json_decref(json);
}

static void test_a_common_line(void **state)
{
    struct access_facts facts = request();

    (void)state;
    assert_string_equal(line_of(&facts, ACCESS_LOG_COMMON),
                        "203.0.113.9 - - [31/Jan/2026:10:00:00 +0000] \"POST /query HTTP/1.1\" 200 5120 \"-\" "
                        "\"httpx/0.28\" 12.345");
    facts = request_of_run();
    assert_string_equal(line_of(&facts, ACCESS_LOG_COMMON),
                        "203.0.113.9 - - [31/Jan/2026:10:00:00 +0000] \"POST /query HTTP/1.1\" 200 5120 \"-\" "
                        "\"httpx/0.28\" 12.345 run=00ff00ff00ff00ff state=error code=agent_exit first_event=1.250 "
                        "events=42 sandbox=i3x model=\"claude-sonnet-4-5\"");
}

static void test_a_json_line(void **state)
{
    struct access_facts facts = request();

    (void)state;
    assert_string_equal(line_of(&facts, ACCESS_LOG_JSON),
                        "{\"time\":\"2026-01-31T10:00:00.123456+00:00\",\"client\":\"203.0.113.9\",\"method\":\"POST\","
                        "\"path\":\"/query\",\"protocol\":\"HTTP/1.1\",\"status\":200,\"bytes\":5120,"
                        "\"duration_ms\":12345.678,\"complete\":true,\"user_agent\":\"httpx/0.28\"}");
    facts = request_of_run();
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_JSON),
                           ",\"run_id\":\"00ff00ff00ff00ff\",\"state\":\"error\",\"error_code\":\"agent_exit\","
                           "\"first_event_ms\":1250,\"events\":42,\"sandbox_id\":\"i3x\","
                           "\"model\":\"claude-sonnet-4-5\"}"));
    json_decref(json_of(&facts));
}

static void test_what_is_not_known_is_a_dash_or_null(void **state)
{
    struct access_facts facts = {.is_http_1_0 = true};

    (void)state;
    access_facts_run(&facts,
                     &(struct access_run){.id = "1", .state = "cancelled", .error_code = "", .first_event_ms = -1});
    assert_string_equal(line_of(&facts, ACCESS_LOG_COMMON),
                        "- - - [01/Jan/1970:00:00:00 +0000] \"- - HTTP/1.0\" - 0 \"-\" \"-\" 0.000 "
                        "run=1 state=cancelled code=- first_event=- events=0 sandbox=- model=\"-\"");
    assert_string_equal(line_of(&facts, ACCESS_LOG_JSON),
                        "{\"time\":\"1970-01-01T00:00:00.000000+00:00\",\"client\":null,\"method\":null,\"path\":null,"
                        "\"protocol\":\"HTTP/1.0\",\"status\":null,\"bytes\":0,\"duration_ms\":0.000,"
                        "\"complete\":false,\"user_agent\":null,\"run_id\":\"1\",\"state\":\"cancelled\","
                        "\"error_code\":null,\"first_event_ms\":null,\"events\":0,\"sandbox_id\":null,"
                        "\"model\":null}");
}

static void test_a_path_has_no_query_host_or_user(void **state)
{
    static const struct {
        const char *target, *path;
    } targets[] = {
        {"/a/b", "/a/b"},
        {"/a?token=x", "/a"},
        {"/?a=/b", "/"},
        {"http://user:secret@host/a?b", "/a"},
        {"https://user:secret@host", "/"},
        {"http://user:secret@host?b=c", "/"},
        {"ftp://user:secret@host/a", "/a"},
        {"/a://b", "/a://b"},
        {"*", "*"},
        {"user:secret@host:443", NULL},
        {"secret", NULL},
        {"", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(targets); i++) {
        struct span path = access_path(span_of(targets[i].target));

        if (targets[i].path == NULL)
            assert_null(path.bytes);
        else if (!span_is(path, targets[i].path))
            fail_msg("%s: %.*s", targets[i].target, (int)path.length, path.bytes);
    }
}

static void test_outside_text_breaks_no_line(void **state)
{
    struct access_facts facts = request();

    (void)state;
    access_text_set(&facts.user_agent, span_of("a\"b\\c\nd\te\x7f\xc3\xa9"));
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_COMMON), "\"a\\x22b\\x5cc\\x0ad\\x09e\\x7f\\xc3\\xa9\" 12.345"));
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_JSON), ":\"a\\\"b\\\\c\\u000ad\\u0009e\\u007f\xc3\xa9\"}"));
    assert_member(&facts, "user_agent", "a\"b\\c\nd\te\x7f\xc3\xa9");
    access_text_set(&facts.user_agent, span_of("\xff"
                                               "a\xc0\x80"
                                               "b\xed\xa0\x80"
                                               "c\xe2\x82"));
    assert_member(&facts, "user_agent",
                  "\xef\xbf\xbd"
                  "a\xef\xbf\xbd\xef\xbf\xbd"
                  "b\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
                  "c\xef\xbf\xbd\xef\xbf\xbd");
    access_text_set(&facts.user_agent, (struct span){"a\0b", 3});
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_COMMON), "\"a\\x00b\""));
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_JSON), "\"a\\u0000b\""));
}

static void test_long_text_is_cut_at_the_end_of_a_sequence(void **state)
{
    struct access_facts facts = request();
    char text[ACCESS_TEXT_MAX_BYTES + 8], wanted[ACCESS_TEXT_MAX_BYTES + 8];

    (void)state;
    for (size_t before = ACCESS_TEXT_MAX_BYTES - 4; before <= ACCESS_TEXT_MAX_BYTES; before++) {
        size_t kept = before + 3 <= ACCESS_TEXT_MAX_BYTES ? before + 3 : before;

        memset(text, 'x', sizeof text);
        memcpy(text + before, "\xe2\x82\xac", 3);
        access_text_set(&facts.user_agent, (struct span){text, before + 5});
        if (kept == before + 3)
            kept = before + 5 <= ACCESS_TEXT_MAX_BYTES ? before + 5 : ACCESS_TEXT_MAX_BYTES;
        memcpy(wanted, text, kept);
        snprintf(wanted + kept, sizeof wanted - kept, "%s", before + 5 > ACCESS_TEXT_MAX_BYTES ? "..." : "");
        assert_member(&facts, "user_agent", wanted);
    }
}

static void test_the_longest_line_is_whole(void **state)
{
    struct access_facts facts = request_of_run();
    char quotes[ACCESS_TEXT_MAX_BYTES + 1], controls[ACCESS_TEXT_MAX_BYTES + 1], id[64];

    (void)state;
    memset(quotes, '"', sizeof quotes);
    memset(controls, 1, sizeof controls);
    memset(id, 'i', sizeof id);
    memset(facts.client, ':', sizeof facts.client - 1);
    access_text_set(&facts.path, (struct span){quotes, sizeof quotes});
    access_text_set(&facts.method, (struct span){controls, sizeof controls});
    memset(facts.method.bytes, 'M', facts.method.length);
    access_text_set(&facts.user_agent, (struct span){controls, sizeof controls});
    access_text_set(&facts.model, (struct span){controls, sizeof controls});
    access_text_set(&facts.sandbox_id, (struct span){id, sizeof id});
    facts.bytes = facts.events = INT64_MAX;
    facts.duration_us = facts.first_event_ms = INT64_MAX;
    json_decref(json_of(&facts));
    assert_non_null(strstr(line_of(&facts, ACCESS_LOG_COMMON), "\\x01...\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_common_line),
        cmocka_unit_test(test_a_json_line),
        cmocka_unit_test(test_what_is_not_known_is_a_dash_or_null),
        cmocka_unit_test(test_a_path_has_no_query_host_or_user),
        cmocka_unit_test(test_outside_text_breaks_no_line),
        cmocka_unit_test(test_long_text_is_cut_at_the_end_of_a_sequence),
        cmocka_unit_test(test_the_longest_line_is_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
