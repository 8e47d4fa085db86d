/* Addresses to listen on: what is understood, what is refused and why, and that binding is all or nothing. */
#include "master/listen.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <unistd.h>

static void expect_address(const char *text, const char *host, const char *port)
{
    struct listen_address address;

    assert_null(listen_parse(text, &address));
    assert_string_equal(address.host, host);
    assert_string_equal(address.port, port);
}

static void test_hosts_and_bracketed_addresses_are_split(void **state)
{
    (void)state;
    expect_address("127.0.0.1:8000", "127.0.0.1", "8000");
    expect_address("localhost:0", "localhost", "0");
    expect_address("[::1]:65535", "::1", "65535");
    expect_address("[::]:80", "::", "80");
}

static void test_what_is_no_address_is_refused_with_a_reason(void **state)
{
    static const struct {
        const char *text;
        const char *reason;
    } bad[] = {
        {"8000", "no port"},           {"::1:8000", "needs brackets"}, {":8000", "no host"},
        {"[]:80", "expected [v6]"},    {"[::1:80", "expected [v6]"},   {"host:", "port is not a number"},
        {"host:http", "port is not"},  {"host:65536", "port is not"},  {"host:-1", "port is not"},
        {"host:8000x", "port is not"}, {"host:000080", "port is not"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct listen_address address;
        const char *fault = listen_parse(bad[i].text, &address);

        if (fault == NULL || strstr(fault, bad[i].reason) == NULL)
            fail_msg("\"%s\": %s", bad[i].text, fault != NULL ? fault : "accepted");
    }
}

static void test_sockets_are_nonblocking_and_close_on_exec(void **state)
{
    struct listeners listeners;

    (void)state;
    assert_true(listeners_open(&listeners, "127.0.0.1:0, 127.0.0.1:0", 16));
    assert_int_equal(listeners.count, 2);
    for (size_t i = 0; i < listeners.count; i++) {
        assert_true(fcntl(listeners.fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(listeners.fds[i], F_GETFD) & FD_CLOEXEC);
    }
    listeners_close(&listeners);
    assert_int_equal(listeners.count, 0);
}

static void test_one_address_in_use_refuses_all(void **state)
{
    struct listeners first, second;
    char name[LISTEN_NAME_MAX_BYTES], list[LISTEN_NAME_MAX_BYTES + 32];

    (void)state;
    assert_true(listeners_open(&first, "127.0.0.1:0", 16));
    snprintf(list, sizeof list, "127.0.0.1:0,%s", listen_name(first.fds[0], name));
    assert_false(listeners_open(&second, list, 16));
    assert_int_equal(second.count, 0);
    assert_true(listeners_check(list)); /* a check binds nothing */
    listeners_close(&first);
}

static void test_an_empty_list_is_refused(void **state)
{
    struct listeners listeners;

    (void)state;
    assert_false(listeners_open(&listeners, " , ", 16));
    assert_false(listeners_check(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_and_bracketed_addresses_are_split),
        cmocka_unit_test(test_what_is_no_address_is_refused_with_a_reason),
        cmocka_unit_test(test_sockets_are_nonblocking_and_close_on_exec),
        cmocka_unit_test(test_one_address_in_use_refuses_all),
        cmocka_unit_test(test_an_empty_list_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
