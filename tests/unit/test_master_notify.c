/* The service manager hears of us over a path or an abstract socket, in the words it knows. */
#include "common/clock.h"
#include "master/notify.h"
#include "tests/unit/unit.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static char directory[] = "/tmp/sandstorm-notify-XXXXXX";

/* A service manager's end, bound to name, where a leading '@' is an abstract one. */
static int listen_as_manager(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", name);
    if (*name == '@')
        address.sun_path[0] = '\0';
    assert_int_equal(
        bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

/* Datagrams on a local socket are there when sendto() returns: nothing to wait for. */
static const char *hear(int fd, char *out, size_t size)
{
    ssize_t n = recv(fd, out, size - 1, 0);

    assert_true(n >= 0);
    out[n] = '\0';
    return out;
}

static void test_states_are_told_over_a_path(void **state)
{
    char path[128], heard[512], wanted[64];
    int fd;

    (void)state;
    snprintf(path, sizeof path, "%s/notify", directory);
    fd = listen_as_manager(path);
    notify_ready("4 workers serve");
    snprintf(wanted, sizeof wanted, "READY=1\nMAINPID=%d\nSTATUS=4 workers serve", (int)getpid());
    assert_string_equal(hear(fd, heard, sizeof heard), wanted);
    notify_stopping("draining");
    assert_string_equal(hear(fd, heard, sizeof heard), "STOPPING=1\nSTATUS=draining");
    notify_watchdog();
    assert_string_equal(hear(fd, heard, sizeof heard), "WATCHDOG=1");
    close(fd);
    unlink(path);
}

static void test_a_reload_carries_the_monotonic_time_over_an_abstract_socket(void **state)
{
    char name[64], heard[512];
    long long told_us;
    int64_t before_ms, after_ms;
    int fd;

    (void)state;
    snprintf(name, sizeof name, "@sandstorm-test-%d", (int)getpid());
    fd = listen_as_manager(name);
    before_ms = monotonic_ms();
    notify_reloading();
    after_ms = monotonic_ms();
    assert_int_equal(sscanf(hear(fd, heard, sizeof heard), "RELOADING=1\nMONOTONIC_USEC=%lld\n", &told_us), 1);
    assert_in_range(told_us / 1000, before_ms, after_ms);
    close(fd);
}

static void test_without_a_manager_nothing_is_sent(void **state)
{
    char heard[16], path[128];
    int fd;

    (void)state;
    snprintf(path, sizeof path, "%s/silent", directory);
    fd = listen_as_manager(path);
    unsetenv("NOTIFY_SOCKET");
    notify_ready("ready");
    setenv("NOTIFY_SOCKET", "relative/path", 1);
    notify_ready("ready");
    assert_int_equal(recv(fd, heard, sizeof heard, 0), -1);
    close(fd);
    unlink(path);
}

static void test_the_watchdog_is_served_twice_per_interval_and_only_when_it_is_ours(void **state)
{
    (void)state;
    unsetenv("WATCHDOG_USEC");
    assert_int_equal(notify_watchdog_interval_ms(), 0);
    setenv("WATCHDOG_USEC", "30000000", 1);
    assert_int_equal(notify_watchdog_interval_ms(), 15000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(notify_watchdog_interval_ms(), 0);
    unsetenv("WATCHDOG_PID");
    unsetenv("WATCHDOG_USEC");
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_are_told_over_a_path),
        cmocka_unit_test(test_a_reload_carries_the_monotonic_time_over_an_abstract_socket),
        cmocka_unit_test(test_without_a_manager_nothing_is_sent),
        cmocka_unit_test(test_the_watchdog_is_served_twice_per_interval_and_only_when_it_is_ours),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
