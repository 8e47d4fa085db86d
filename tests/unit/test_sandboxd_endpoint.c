/* endpoint: the list of what may be reached. */
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
        {"[0:0::0:1]:80", "::1", 80},
        {"[FD00::A]:80", "fd00::a", 80},
        {"[::ffff:10.0.0.1]:80", "::ffff:10.0.0.1", 80},
        {"[name]:80", "name", 80},
        {"[1:2]:80", NULL, 0},
        {"[fe80::1%eth0]:80", NULL, 0},
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

static void test_an_address_is_found_under_any_name(void **state)
{
    const struct endpoint_list list = {.count = 3, .entries = {{"a.example", 443}, {"10.0.0.1", 80}, {"fd00::1", 80}}};
    static const struct {
        const char *address;
        uint16_t port;
        int entry; /* -1: none */
    } cases[] = {
        {"10.0.0.1", 80, 1}, {"10.0.0.1", 81, -1},        {"10.0.0.2", 80, -1},
        {"fd00::1", 80, 2},  {"::ffff:10.0.0.1", 80, -1}, {"fd00::2", 80, -1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        union address address;

        assert_true(address_parse(cases[i].address, cases[i].port, &address));
        assert_ptr_equal(endpoint_find_address(&list, &address),
                         cases[i].entry < 0 ? NULL : &list.entries[cases[i].entry]);
    }
}

static void test_endpoints_are_written_with_brackets_where_needed(void **state)
{
    const struct endpoint name = {"a.example", 443}, v6 = {"::1", 80};
    char text[ENDPOINT_TEXT_MAX_BYTES];

    (void)state;
    assert_string_equal(endpoint_text(&name, text), "a.example:443");
    assert_string_equal(endpoint_text(&v6, text), "[::1]:80");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_endpoints_are_read),
        cmocka_unit_test(test_only_loopback_gets_a_listener),
        cmocka_unit_test(test_a_list_holds_exact_pairs),
        cmocka_unit_test(test_an_address_is_found_under_any_name),
        cmocka_unit_test(test_endpoints_are_written_with_brackets_where_needed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
