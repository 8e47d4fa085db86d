/* What sandboxd reads and writes on the wire without a socket: metadata, base64, envelopes, users, paths, statuses. */
#include "common/base64.h"
#include "sandboxd/access.h"
#include "sandboxd/process.h"
#include "sandboxd/query.h"
#include "sandboxd/rpc.h"
#include "tests/unit/unit.h"

#include <signal.h>

static void test_metadata_is_decoded_as_e2b_does(void **state)
{
    static const struct {
        const char *text; /* after the query was decoded once */
        const char *json; /* NULL: refused */
    } cases[] = {
        {"a%2520b=c%2526d%253D%25C3%25A9", "{\"a b\":\"c&d=\xc3\xa9\"}"},
        {"k=v&k2=v2", "{\"k\":\"v\",\"k2\":\"v2\"}"},
        {"", "{}"},
        {"k=", "{\"k\":\"\"}"},
        {"k", NULL},
        {"k=v=w", NULL},
        {"k=v&&x=y", NULL},
        {"k=%25FF", NULL}, /* not UTF-8 */
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        json_t *got = query_metadata(cases[i].text);
        json_t *wanted = cases[i].json == NULL ? NULL : json_loads(cases[i].json, 0, NULL);

        assert_int_equal(got == NULL, wanted == NULL);
        if (wanted != NULL)
            assert_true(json_equal(got, wanted));
        json_decref(got);
        json_decref(wanted);
    }
}

static void test_all_given_pairs_must_match(void **state)
{
    json_t *own = json_pack("{s:s, s:s}", "a", "1", "b", "2");
    json_t *part = json_pack("{s:s}", "b", "2");
    json_t *other = json_pack("{s:s, s:s}", "a", "1", "b", "3");

    (void)state;
    assert_true(query_metadata_matches(own, NULL));
    assert_true(query_metadata_matches(own, part));
    assert_false(query_metadata_matches(own, other));
    assert_false(query_metadata_matches(NULL, part));
    json_decref(own);
    json_decref(part);
    json_decref(other);
}

static void test_base64_of_every_length(void **state)
{
    static const char *const encoded[] = {"", "/w==", "//8=", "////", "/////w=="};
    const unsigned char bytes[] = {255, 255, 255, 255};

    (void)state;
    for (size_t length = 0; length < COUNT(encoded); length++) {
        char out[16] = "", back[16];
        size_t decoded = 99;

        base64_encode(bytes, length, out);
        assert_string_equal(out, encoded[length]);
        assert_true(base64_decode_lenient(out, strlen(out), back, &decoded));
        assert_int_equal(decoded, length);
        assert_memory_equal(back, bytes, length);
    }
}

static void test_base64_takes_url_safe_and_refuses_the_rest(void **state)
{
    char back[16];
    size_t decoded;

    (void)state;
    assert_true(base64_decode_lenient("_-8", 3, back, &decoded));
    assert_int_equal(decoded, 2);
    assert_memory_equal(back, "\xff\xef", 2);
    assert_false(base64_decode_lenient("A", 1, back, &decoded));
    assert_false(base64_decode_lenient("AA*A", 4, back, &decoded));
    assert_false(base64_decode_lenient("A\0AA", 4, back, &decoded));
}

static void test_one_request_envelope_and_nothing_else(void **state)
{
    static const struct {
        const char *body;
        size_t bytes;
        enum rpc_request_result result;
    } cases[] = {
        {"\0\0\0\0\2{}", 7, RPC_REQUEST_OK},
        {"\0\0\0\0\0", 5, RPC_REQUEST_OK},
        {"", 0, RPC_REQUEST_NONE},
        {"\0\0\0\0", 4, RPC_REQUEST_MALFORMED},
        {"\0\0\0\0\3{}", 7, RPC_REQUEST_MALFORMED},
        {"\0\0\0\0\1{}", 7, RPC_REQUEST_MALFORMED},
        {"\1\0\0\0\2{}", 7, RPC_REQUEST_MALFORMED},
        {"\0\377\377\377\377{}", 7, RPC_REQUEST_MALFORMED},
        {"\0\0\0\0\0\0\0\0\0\0", 10, RPC_REQUEST_MALFORMED},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *payload;
        size_t bytes;

        assert_int_equal(rpc_read_request(cases[i].body, cases[i].bytes, &payload, &bytes), cases[i].result);
    }
}

static void test_the_end_of_a_stream_is_one_envelope(void **state)
{
    struct evbuffer *out = evbuffer_new();
    json_t *error = rpc_error(RPC_NOT_FOUND, "x");

    (void)state;
    assert_non_null(out);
    rpc_put_end(out, NULL);
    assert_memory_equal(evbuffer_pullup(out, -1), "\2\0\0\0\2{}", 7);
    evbuffer_drain(out, 7);
    rpc_put_end(out, error);
    assert_memory_equal(evbuffer_pullup(out, -1), "\2\0\0\0\x2c{\"error\":{\"code\":\"not_found\",\"message\":\"x\"}}",
                        49);
    json_decref(error);
    evbuffer_free(out);
}

static void test_timeouts(void **state)
{
    uint64_t ms;

    (void)state;
    assert_int_equal(rpc_read_timeout(NULL, &ms), RPC_TIMEOUT_NONE);
    assert_int_equal(rpc_read_timeout("0", &ms), RPC_TIMEOUT_OK);
    assert_int_equal(rpc_read_timeout("9999999999", &ms), RPC_TIMEOUT_OK);
    assert_int_equal(ms, 9999999999);
    assert_int_equal(rpc_read_timeout("10000000000", &ms), RPC_TIMEOUT_INVALID);
    assert_int_equal(rpc_read_timeout("", &ms), RPC_TIMEOUT_INVALID);
    assert_int_equal(rpc_read_timeout("-1", &ms), RPC_TIMEOUT_INVALID);
    assert_int_equal(rpc_read_timeout("1s", &ms), RPC_TIMEOUT_INVALID);
}

static void test_users_and_tokens(void **state)
{
    char name[ACCESS_USER_MAX_BYTES], long_one[1024];

    (void)state;
    assert_true(access_basic_user("Basic cm9vdDo=", name));
    assert_string_equal(name, "root");
    assert_true(access_basic_user("basic dXNlcjpwYXNz", name));
    assert_string_equal(name, "user");
    assert_false(access_basic_user("Bearer cm9vdDo=", name));
    memset(long_one, 'A', sizeof long_one - 1);
    long_one[sizeof long_one - 1] = '\0';
    memcpy(long_one, "Basic ", 6);
    assert_false(access_basic_user(long_one, name));
    assert_true(access_user_exists("user") && access_user_exists("root") && !access_user_exists("nobody"));
    assert_true(access_token_equal("abc", "abc"));
    assert_false(access_token_equal("ab", "abc") || access_token_equal("abcd", "abc") ||
                 access_token_equal("abd", "abc"));
}

static void test_paths_are_resolved_below_the_home(void **state)
{
    static const struct {
        const char *path;
        const char *resolved; /* NULL: refused */
    } cases[] = {
        {NULL, "/home/user"},
        {"", "/home/user"},
        {"~", "/home/user"},
        {"~/x", "/home/user/x"},
        {"a/../b", "/home/user/a/../b"},
        {"/abs/./x", "/abs/./x"},
        {"~other", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *resolved = process_resolve_path(cases[i].path);

        if (cases[i].resolved == NULL)
            assert_null(resolved);
        else
            assert_string_equal(resolved, cases[i].resolved);
        free(resolved);
    }
}

static void test_statuses_are_said_as_go_says_them(void **state)
{
    char text[PROCESS_STATUS_MAX_BYTES];

    (void)state;
    assert_string_equal(process_status_text(0, text), "exit status 0");
    assert_string_equal(process_status_text(3 << 8, text), "exit status 3");
    assert_string_equal(process_status_text(SIGKILL, text), "signal: killed");
    assert_string_equal(process_status_text(SIGTERM, text), "signal: terminated");
    assert_string_equal(process_status_text(SIGSEGV | 0x80, text), "signal: segmentation fault (core dumped)");
}

static void test_a_time_is_read_to_microseconds(void **state)
{
    static const struct {
        const char *text;
        long long microseconds; /* -1: none */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"2026-08-21T10:00:00.123456Z", 1787306400123456},
        {"2026-08-21T10:00:00.1234567899z", 1787306400123456},
        {"2026-08-21T12:30:00.5+02:30", 1787306400500000},
        {"2026-08-21T08:00:00-02:00", 1787306400000000},
        {"2026-08-21T10:00:00", -1},
        {"2026-08-21T10:00:00Zx", -1},
        {"2026-08-21T10:00:00+2:0", -1},
        {"2026-08-21T10:00:00+02:00x", -1},
        {"2026-08-21", -1},
        {"", -1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        long long microseconds = -1;

        assert_int_equal(query_time(cases[i].text, &microseconds), cases[i].microseconds >= 0);
        assert_int_equal(microseconds, cases[i].microseconds);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_time_is_read_to_microseconds),
        cmocka_unit_test(test_metadata_is_decoded_as_e2b_does),
        cmocka_unit_test(test_all_given_pairs_must_match),
        cmocka_unit_test(test_base64_of_every_length),
        cmocka_unit_test(test_base64_takes_url_safe_and_refuses_the_rest),
        cmocka_unit_test(test_one_request_envelope_and_nothing_else),
        cmocka_unit_test(test_the_end_of_a_stream_is_one_envelope),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_users_and_tokens),
        cmocka_unit_test(test_paths_are_resolved_below_the_home),
        cmocka_unit_test(test_statuses_are_said_as_go_says_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
