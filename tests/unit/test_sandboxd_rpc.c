/* The Connect protocol's text and envelopes where a request has several of them. */
#include "sandboxd/envd_process.h"
#include "sandboxd/rpc.h"
#include "tests/unit/unit.h"

#include <string.h>

static void test_several_envelopes_are_read_in_turn(void **state)
{
    static const char body[] = "\0\0\0\0\2{}\0\0\0\0\3[1]\0\0\0\0\x09{";
    const char *next = body, *end = body + 7 + 8 + 6, *payload;
    size_t bytes;

    (void)state;
    assert_int_equal(rpc_next_request(end, &next, &payload, &bytes), RPC_REQUEST_OK);
    assert_int_equal(bytes, 2);
    assert_int_equal(rpc_next_request(end, &next, &payload, &bytes), RPC_REQUEST_OK);
    assert_memory_equal(payload, "[1]", 3);
    assert_int_equal(rpc_next_request(end, &next, &payload, &bytes), RPC_REQUEST_MALFORMED); /* cut */
    assert_int_equal(rpc_next_request(next, &next, &payload, &bytes), RPC_REQUEST_NONE);
    assert_int_equal(rpc_read_request(body, 7, &payload, &bytes), RPC_REQUEST_OK);
    assert_int_equal(rpc_read_request(body, 15, &payload, &bytes), RPC_REQUEST_MALFORMED); /* two, where one is due */
}

static void test_any_bytes_become_text(void **state)
{
    static const struct {
        const char *bytes;
        const char *text;
    } cases[] = {
        {"", ""},
        {"plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "plain \xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xc3", "\xef\xbf\xbd"},                                 /* cut */
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* longer than it must be */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_t *text = rpc_text(cases[i].bytes, strlen(cases[i].bytes));

        assert_string_equal(json_string_value(text), cases[i].text);
        json_decref(text);
    }
}

/* A number beyond those of processes selects none, and not the one of its low bits. */
static void test_a_selector_means_the_process_it_names(void **state)
{
    static const struct {
        const char *message;
        pid_t pid;
    } cases[] = {
        {"{\"process\":{\"pid\":42}}", 42},          {"{\"process\":{\"pid\":\"42\"}}", 42},
        {"{\"process\":{\"pid\":4294967338}}", -1},  {"{\"process\":{\"pid\":\"4294967338\"}}", -1},
        {"{\"process\":{\"pid\":-4294967254}}", -1}, {"{\"process\":{\"pid\":-1}}", -1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_t *message = json_loads(cases[i].message, 0, NULL);
        struct process_selector selector;

        assert_true(process_selector_read(message, &selector));
        assert_int_equal(selector.pid, cases[i].pid);
        assert_null(selector.tag);
        json_decref(message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several_envelopes_are_read_in_turn),
        cmocka_unit_test(test_any_bytes_become_text),
        cmocka_unit_test(test_a_selector_means_the_process_it_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
