/* sandboxd as the master's child: it gets a time to start and one to end, and its socket is refused with the reason. */
#include "common/clock.h"
#include "master/runtime.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* More than it is given to start, or to end. */
#define TOO_LONG_MS 20000

static char home[] = "/tmp/sandstorm-runtime-XXXXXX";
static char program[64], heard[64], socket_path[64], long_path[160];
static struct settings settings;
static const struct privileges privileges;
static struct runtime *runtime;

/* sandboxd is this script. */
static void use_script(const char *text)
{
    FILE *out = fopen(program, "w");

    assert_non_null(out);
    fprintf(out, "#!/bin/sh\n%s\n", text);
    fclose(out);
    assert_int_equal(chmod(program, 0700), 0);
}

static int set_up(void **state)
{
    static char none[] = "";

    (void)state;
    if (mkdtemp(home) == NULL)
        return -1;
    snprintf(program, sizeof program, "%s/sandboxd", home);
    snprintf(heard, sizeof heard, "%s/heard", home);
    snprintf(socket_path, sizeof socket_path, "%s/socket", home);
    snprintf(long_path, sizeof long_path, "%s/%0100d", home, 0);
    settings = (struct settings){
        .sandboxd = program, .local_socket = socket_path, .template_dir = none, .network_allow = none};
    return 0;
}

static int tear_down(void **state)
{
    const char *const files[] = {program, heard, socket_path};

    (void)state;
    runtime_free(runtime);
    runtime = NULL;
    for (size_t i = 0; i < COUNT(files); i++)
        unlink(files[i]);
    if (rmdir(home) < 0)
        return -1;
    memcpy(strrchr(home, '-'), "-XXXXXX", 8);
    return 0;
}

/* The child's end, told to the runtime; returns its status. */
static int reap(void)
{
    int status;
    pid_t pid = waitpid(-1, &status, 0);

    assert_true(pid > 0);
    assert_true(runtime_reaped(runtime, pid, status, monotonic_ms()));
    return status;
}

static void start(void)
{
    runtime = runtime_new(&settings, &privileges);
    assert_non_null(runtime);
    assert_int_equal(runtime_state(runtime), RUNTIME_STARTING);
}

/* Waits for its word that it is ready. */
static void expect_ready(void)
{
    struct pollfd fd = {.fd = runtime_ready_fd(runtime), .events = POLLIN};

    assert_int_equal(poll(&fd, 1, TOO_LONG_MS), 1);
    runtime_readable(runtime);
    assert_int_equal(runtime_state(runtime), RUNTIME_SERVING);
}

/* Says ready on the descriptor that follows --ready-fd. */
#define SAY_READY "while [ \"$1\" != --ready-fd ]; do shift; done; echo >/proc/$$/fd/$2; "

static void test_what_does_not_get_ready_is_killed(void **state)
{
    int64_t now_ms = monotonic_ms();
    int status;

    (void)state;
    use_script("exec sleep 1000");
    start();
    assert_true(runtime_deadline_ms(runtime) > now_ms);
    runtime_tick(runtime, now_ms + TOO_LONG_MS);
    status = reap();
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(runtime_state(runtime), RUNTIME_FAILED);
}

static void test_what_does_not_end_is_killed(void **state)
{
    int status;

    (void)state;
    use_script("trap '' TERM; " SAY_READY "exec sleep 1000");
    start();
    expect_ready();
    runtime_stop(runtime, monotonic_ms());
    runtime_stop(runtime, monotonic_ms()); /* said once */
    assert_int_equal(runtime_state(runtime), RUNTIME_STOPPING);
    runtime_tick(runtime, monotonic_ms() + TOO_LONG_MS);
    status = reap();
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(runtime_state(runtime), RUNTIME_GONE);
}

static void test_what_cannot_be_run_is_a_failure(void **state)
{
    int status;

    (void)state;
    start();
    status = reap();
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    assert_int_equal(runtime_state(runtime), RUNTIME_FAILED);
}

static void test_what_dies_starts_again_after_a_while(void **state)
{
    int64_t due_ms, before_ms = monotonic_ms();

    (void)state;
    use_script(SAY_READY "exit 3");
    start();
    expect_ready();
    (void)reap();
    assert_int_equal(runtime_state(runtime), RUNTIME_SERVING);
    due_ms = runtime_deadline_ms(runtime);
    assert_true(due_ms >= before_ms);
    runtime_tick(runtime, due_ms - 1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* not yet */
    assert_int_equal(errno, ECHILD);
    runtime_tick(runtime, due_ms);
    expect_ready();
    (void)reap();
    runtime_stop(runtime, due_ms);
    assert_int_equal(runtime_state(runtime), RUNTIME_GONE);
}

static void test_a_stranger_is_not_its_child(void **state)
{
    (void)state;
    use_script("exit 0");
    start();
    assert_false(runtime_reaped(runtime, getpid(), 0, monotonic_ms()));
    (void)reap();
    assert_false(runtime_reaped(runtime, getpid(), 0, monotonic_ms()));
}

/* --- its socket ----------------------------------------------------------------------------------------- */

static void test_a_path_that_is_too_long_is_refused(void **state)
{
    (void)state;
    settings.local_socket = long_path;
    assert_null(runtime_new(&settings, &privileges));
}

static void test_a_file_that_is_no_socket_is_refused_and_stays(void **state)
{
    (void)state;
    settings.local_socket = program;
    use_script("");
    assert_null(runtime_new(&settings, &privileges));
    assert_int_equal(access(program, F_OK), 0);
}

static void test_another_servers_socket_is_refused_and_stays(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_null(runtime_new(&settings, &privileges));
    assert_int_equal(access(socket_path, F_OK), 0);
    close(fd);
}

static void test_without_a_path_it_lies_where_only_we_may_enter(void **state)
{
    char directory[128];
    struct stat status;

    (void)state;
    settings.local_socket = (char *)"";
    setenv("RUNTIME_DIRECTORY", "relative", 1); /* not a place */
    setenv("XDG_RUNTIME_DIR", home, 1);
    use_script("exit 0");
    start();
    snprintf(directory, sizeof directory, "%s", runtime_socket_path(runtime));
    assert_memory_equal(directory, home, strlen(home));
    *strrchr(directory, '/') = '\0';
    assert_int_equal(stat(directory, &status), 0);
    assert_int_equal(status.st_mode & 0777, 0700);
    (void)reap();
    unsetenv("RUNTIME_DIRECTORY");
    unsetenv("XDG_RUNTIME_DIR");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_what_does_not_get_ready_is_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_does_not_end_is_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_cannot_be_run_is_a_failure, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_dies_starts_again_after_a_while, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stranger_is_not_its_child, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_path_that_is_too_long_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_file_that_is_no_socket_is_refused_and_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_another_servers_socket_is_refused_and_stays, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_path_it_lies_where_only_we_may_enter, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
