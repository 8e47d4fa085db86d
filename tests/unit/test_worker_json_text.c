/* JSON as text: what RFC 8259 takes and what it refuses, and values written anew as they were spelled. */
#include "tests/unit/unit.h"
#include "worker/json_text.h"

static const char *const good[] = {
    "0",
    "-0",
    "-0.5e+10",
    "1E9",
    "123456789012345678901234567890123456789012345678901234567890",
    "\"\"",
    "\"\\u0000\\ud83d\\ude00\\/\\\"\"",
    "\"\xc3\xa4\x7f\"",
    " \t\r\n[ ] ",
    "{}",
    "{\"a\":{\"b\":[1,2,{\"c\":null}]},\"a\":true}",
    "[[],[[]],{},false]",
};

static const struct {
    const char *text;
    size_t offset;
} bad[] = {
    {"", 0},
    {" ", 1},
    {"[", 1},
    {"[1,]", 3},
    {"{\"a\":1,}", 7},
    {"{a:1}", 1},
    {"{'a':1}", 1},
    {"{\"a\" 1}", 5},
    {"[1 2]", 3},
    {"[1}", 2},
    {"01", 1},
    {"1.", 2},
    {".5", 0},
    {"+1", 0},
    {"1e", 2},
    {"-", 1},
    {"NaN", 0},
    {"Infinity", 0},
    {"tru", 0},
    {"1 2", 2},
    {"\"a", 2},
    {"\"\n\"", 1},
    {"\"\\x\"", 2},
    {"\"\\u12g4\"", 2},
    {"\"\\ud800\"", 2},
    {"\"\\ud800\\u0041\"", 2},
    {"\"\\udc00\"", 2},
    {"\"\\", 2},
    {"{\"a\":1}}", 7},
};

static void test_what_json_is_and_where_it_is_not(void **state)
{
    struct json_text root;
    struct json_text_fault fault;

    (void)state;
    for (size_t i = 0; i < COUNT(good); i++)
        assert_int_equal(json_text_check(good[i], strlen(good[i]), &root, &fault), JSON_TEXT_OK);
    for (size_t i = 0; i < COUNT(bad); i++) {
        assert_int_equal(json_text_check(bad[i].text, strlen(bad[i].text), &root, &fault), JSON_TEXT_INVALID);
        if (fault.offset != bad[i].offset)
            fail_msg("%s: at %zu, wanted %zu: %s", bad[i].text, fault.offset, bad[i].offset, fault.reason);
    }
    assert_int_equal(json_text_check("[\0]", 3, &root, &fault), JSON_TEXT_INVALID);
}

static struct json_text check(const char *text)
{
    struct json_text root;
    struct json_text_fault fault;

    assert_int_equal(json_text_check(text, strlen(text), &root, &fault), JSON_TEXT_OK);
    return root;
}

static json_t *upper(json_t *string, void *context)
{
    (void)context;
    json_decref(string);
    return json_string("X");
}

static void expect_rewritten(const char *text, json_t *(*map)(json_t *, void *), const char *wanted)
{
    struct evbuffer *out = evbuffer_new();
    char *got;

    assert_true(json_text_rewrite(check(text), out, map, NULL));
    evbuffer_add(out, "", 1);
    got = (char *)evbuffer_pullup(out, -1);
    assert_string_equal(got, wanted);
    evbuffer_free(out);
}

static void test_rewriting_keeps_order_and_spelling_of_numbers(void **state)
{
    (void)state;
    expect_rewritten(" { \"z\" : 1.50 , \"a\" : [ 1E2 , -0 , 12345678901234567890123 ] } ", NULL,
                     "{\"z\":1.50,\"a\":[1E2,-0,12345678901234567890123]}");
    expect_rewritten("{\"\\u00e4\\/\":\"\\u0000 \\ud83d\\ude00\"}", NULL,
                     "{\"\xc3\xa4/\":\"\\u0000 \xf0\x9f\x98\x80\"}");
    expect_rewritten("{\"k\":[\"v\",{\"k\" :\"v\"}],\"n\":null}", upper, "{\"k\":[\"X\",{\"k\":\"X\"}],\"n\":null}");
}

static void test_of_a_repeated_key_the_last_wins(void **state)
{
    json_t *members = json_text_members(check("{\"a\":1,\"b\\u0000\":2,\"\\u0061\": [3] }"), json_text_verbatim, NULL);
    char *dumped = json_dumps(members, JSON_COMPACT);

    (void)state;
    assert_string_equal(dumped, "{\"a\":\"[3]\",\"b\\u0000\":\"2\"}");
    free(dumped);
    json_decref(members);
}

static void test_strings_are_decoded(void **state)
{
    json_t *string = json_text_string(check("\"\\b\\f\\r\\/\\\"a\\n\\t\\\\\\u00e4\\u20ac\\ud83d\\ude00\\u0000z\""));
    static const char wanted[] = "\b\f\r/\"a\n\t\\\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\0z";

    (void)state;
    assert_int_equal(json_string_length(string), sizeof wanted - 1);
    assert_memory_equal(json_string_value(string), wanted, sizeof wanted);
    json_decref(string);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_json_is_and_where_it_is_not),
        cmocka_unit_test(test_rewriting_keeps_order_and_spelling_of_numbers),
        cmocka_unit_test(test_of_a_repeated_key_the_last_wins),
        cmocka_unit_test(test_strings_are_decoded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
