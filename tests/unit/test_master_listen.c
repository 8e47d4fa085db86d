/* Addresses to listen on: what is understood, what is refused and why, and that binding is all or nothing. */
#include "master/listen.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <unistd.h>

static struct settings settings_of(const char *list)
{
    return (struct settings){
        .bind = (char *)list, .backlog = 16, .unix_mode = (char *)"0600", .unix_owner = (char *)""};
}

static bool open_list(struct listeners *listeners, const char *list, const struct listeners *in_use)
{
    const struct settings settings = settings_of(list);

    return listeners_open(listeners, &settings, in_use);
}

static bool check_list(const char *list)
{
    const struct settings settings = settings_of(list);

    return listeners_check(&settings);
}

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
    expect_address("[::]:80;proxy_protocol", "::", "80");
    expect_address("unix:/run/a:b.sock", "/run/a:b.sock", "");
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
        {"host:8000x", "port is not"}, {"host:000080", "port is not"}, {"unix:run/s", "unix:/path"},
        {"host:1;x", "only option"},
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
    assert_true(open_list(&listeners, "127.0.0.1:0, 127.0.0.1:0", NULL));
    assert_int_equal(listeners.count, 2);
    for (size_t i = 0; i < listeners.count; i++) {
        assert_true(fcntl(listeners.fds[i], F_GETFL) & O_NONBLOCK);
        assert_true(fcntl(listeners.fds[i], F_GETFD) & FD_CLOEXEC);
    }
    listeners_close(&listeners, NULL);
    assert_int_equal(listeners.count, 0);
}

static void test_one_address_in_use_refuses_all(void **state)
{
    struct listeners first, second;
    char name[LISTEN_NAME_MAX_BYTES], list[LISTEN_NAME_MAX_BYTES + 32];

    (void)state;
    assert_true(open_list(&first, "127.0.0.1:0", NULL));
    snprintf(list, sizeof list, "127.0.0.1:0,%s", listen_name(first.fds[0], name));
    assert_false(open_list(&second, list, NULL));
    assert_int_equal(second.count, 0);
    assert_true(check_list(list)); /* a check binds nothing */
    listeners_close(&first, NULL);
}

static void test_a_change_shares_what_stays_and_closes_what_goes(void **state)
{
    struct listeners first, second, third;
    char name[LISTEN_NAME_MAX_BYTES], list[LISTEN_NAME_MAX_BYTES + 64];

    (void)state;
    assert_true(open_list(&first, "127.0.0.1:0, localhost:0, 127.0.0.1:0", NULL));
    assert_true(open_list(&second, "127.0.0.1:0;proxy_protocol, 127.0.0.2:0", &first));
    assert_int_equal(second.fds[0], first.fds[0]);
    assert_int_equal(listeners_proxied(&second), 1);
    listeners_close(&first, &second);
    assert_true(fcntl(second.fds[0], F_GETFD) >= 0);
    snprintf(list, sizeof list, "127.0.0.1:0,127.0.0.3:0,%s", listen_name(second.fds[1], name));
    assert_false(open_list(&third, list, &second)); /* that one is open under another text */
    assert_int_equal(third.count, 0);
    assert_true(fcntl(second.fds[0], F_GETFD) >= 0);
    listeners_close(&second, NULL);
}

static void test_a_listener_passes_through_a_line_of_text(void **state)
{
    struct listeners listeners, copy = {.count = 0};
    char line[LISTEN_ITEM_MAX_BYTES + 128] = "";
    FILE *out = fmemopen(line, sizeof line, "w");

    (void)state;
    assert_true(open_list(&listeners, "localhost:0;proxy_protocol", NULL));
    listener_write(&listeners, 0, out);
    fclose(out);
    assert_true(listener_read(&copy, line));
    assert_int_equal(copy.fds[0], listeners.fds[0]);
    assert_string_equal(copy.about[0].item, "localhost:0");
    assert_true(copy.about[0].has_proxy_header);
    assert_false(listener_read(&copy, "x"));
    assert_false(listener_read(&copy, "3 0 0"));
    listeners_close(&listeners, NULL);
}

static void test_an_empty_list_is_refused(void **state)
{
    struct listeners listeners;

    (void)state;
    assert_false(open_list(&listeners, " , ", NULL));
    assert_false(check_list(""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hosts_and_bracketed_addresses_are_split),
        cmocka_unit_test(test_what_is_no_address_is_refused_with_a_reason),
        cmocka_unit_test(test_sockets_are_nonblocking_and_close_on_exec),
        cmocka_unit_test(test_one_address_in_use_refuses_all),
        cmocka_unit_test(test_a_change_shares_what_stays_and_closes_what_goes),
        cmocka_unit_test(test_a_listener_passes_through_a_line_of_text),
        cmocka_unit_test(test_an_empty_list_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
