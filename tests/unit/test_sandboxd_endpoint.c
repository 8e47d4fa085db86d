/* endpoint: the list of what may be reached, and the CONNECT head that asks for it. */
#include "sandboxd/endpoint.h"
#include "tests/unit/unit.h"

static void test_endpoints_are_read(void **state)
{
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        int port;
    } cases[] = {
        {"api.anthropic.com:443", "api.anthropic.com", 443},
        {"API.Example.COM:1", "api.example.com", 1},
        {"127.0.0.1:65535", "127.0.0.1", 65535},
        {"[::1]:80", "::1", 80},
        {"::1:80", NULL, 0},
        {"host", NULL, 0},
        {"host:", NULL, 0},
        {"host:0", NULL, 0},
        {"host:65536", NULL, 0},
        {"host:99999999999", NULL, 0},
        {"host:+1", NULL, 0},
        {":80", NULL, 0},
        {"[]:80", NULL, 0},
        {"ho st:80", NULL, 0},
        {"user@host:80", NULL, 0},
        {"host\r\n:80", NULL, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint endpoint;
        bool read = endpoint_parse(cases[i].text, strlen(cases[i].text), &endpoint);

        assert_int_equal(read, cases[i].host != NULL);
        if (read) {
            assert_string_equal(endpoint.host, cases[i].host);
            assert_int_equal(endpoint.port, cases[i].port);
        }
    }
}

static void test_only_loopback_gets_a_listener(void **state)
{
    static const struct {
        struct endpoint endpoint;
        bool is_loopback;
    } cases[] = {
        {{"127.0.0.1", 80}, true},  {{"127.9.9.9", 80}, true}, {{"localhost", 80}, true},    {{"::1", 80}, true},
        {{"128.0.0.1", 80}, false}, {{"::2", 80}, false},      {{"example.com", 80}, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct sockaddr_storage address;

        assert_int_equal(endpoint_loopback_address(&cases[i].endpoint, &address) != 0, cases[i].is_loopback);
    }
}

static void test_a_list_holds_exact_pairs(void **state)
{
    const struct endpoint_list list = {.count = 2, .entries = {{"a.example", 443}, {"b.example", 80}}};
    const struct endpoint allowed = {"b.example", 80}, other_port = {"a.example", 80},
                          other_host = {"x.a.example", 443};

    (void)state;
    assert_ptr_equal(endpoint_find(&list, &allowed), &list.entries[1]);
    assert_null(endpoint_find(&list, &other_port));
    assert_null(endpoint_find(&list, &other_host));
}

static void test_connect_heads(void **state)
{
    static const struct {
        const char *head;
        enum connect_head_result result;
    } cases[] = {
        {"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n\r\n", CONNECT_HEAD_OK},
        {"CONNECT a.example:443 HTTP/1.0\r\n\r\n", CONNECT_HEAD_OK},
        {"", CONNECT_HEAD_INCOMPLETE},
        {"CONN", CONNECT_HEAD_INCOMPLETE},
        {"CONNECT a.example:443 HTTP/1.1\r\nHost: x\r\n", CONNECT_HEAD_INCOMPLETE},
        {"GET", CONNECT_HEAD_BAD},
        {"GET http://a.example/ HTTP/1.1\r\n\r\n", CONNECT_HEAD_BAD},
        {"connect a.example:443 HTTP/1.1\r\n\r\n", CONNECT_HEAD_BAD},
        {"CONNECT a.example HTTP/1.1\r\n\r\n", CONNECT_HEAD_BAD},
        {"CONNECT a.example:443\r\n\r\n", CONNECT_HEAD_BAD},
        {"CONNECT  a.example:443 HTTP/1.1\r\n\r\n", CONNECT_HEAD_BAD},
        {"CONNECT a.example:443 HTTP/2.0\r\n\r\n", CONNECT_HEAD_BAD},
        {"CONNECT \r\n\r\n", CONNECT_HEAD_BAD},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct endpoint target;
        size_t length = strlen(cases[i].head), head_bytes = 0;
        char *copy = malloc(length + 4);

        assert_non_null(copy);
        memcpy(copy, cases[i].head, length);
        memcpy(copy + length, "next", 4);
        assert_int_equal(connect_head_parse(copy, length, &target, &head_bytes), cases[i].result);
        if (cases[i].result == CONNECT_HEAD_OK) {
            assert_int_equal(connect_head_parse(copy, length + 4, &target, &head_bytes), CONNECT_HEAD_OK);
            assert_int_equal(head_bytes, length);
            assert_string_equal(target.host, "a.example");
            assert_int_equal(target.port, 443);
        }
        free(copy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoints_are_read),
        cmocka_unit_test(test_only_loopback_gets_a_listener),
        cmocka_unit_test(test_a_list_holds_exact_pairs),
        cmocka_unit_test(test_connect_heads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
