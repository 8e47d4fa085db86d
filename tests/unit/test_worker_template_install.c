/* The agent's SDK installed in a sandbox whose template lacks it: what is said when npm fails, or takes too long. */
#include "tests/unit/unit.h"

#include "tests/unit/timers.h"
#include "worker/agent_stream.h"
#include "worker/template_install.h"

static struct {
    struct event_base *base;
    struct agent_stream_request stream; /* of the command under way */
    char command[256];
    int open, ends;
    enum run_error error;
    char message[4096];
} world;

static int handle;

struct agent_stream *agent_stream_open(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                       const struct agent_stream_request *request)
{
    (void)e2b;
    (void)sandbox;
    world.stream = *request;
    snprintf(world.command, sizeof world.command, "%s", request->command);
    world.open++;
    return (struct agent_stream *)&handle;
}

void agent_stream_cancel(struct agent_stream *stream)
{
    world.open -= stream != NULL;
}

static void on_installed(void *context, const struct e2b_result *result)
{
    (void)context;
    world.ends++;
    world.error = result->error;
    snprintf(world.message, sizeof world.message, "%s", result->message);
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    timers_begin();
    world.base = event_base_new();
    assert_non_null(
        template_install_start(&(struct e2b_context){.base = world.base}, NULL, "1.2.3", on_installed, NULL));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(world.ends, 1);
    assert_null(waiting_timers(world.base).shortest);
    event_base_free(world.base);
    return 0;
}

static void say(bool is_stderr, const char *text)
{
    world.stream.handlers.on_output(world.stream.handlers.context, is_stderr, text, strlen(text));
}

static void leave(int exit_code)
{
    world.stream.handlers.on_exit(world.stream.handlers.context, exit_code, "exit status 7");
}

static void test_npm_installs_the_pinned_version(void **state)
{
    (void)state;
    assert_non_null(strstr(world.command, "@1.2.3"));
    assert_true(world.stream.as_root);
    world.stream.handlers.on_start(world.stream.handlers.context, 1);
    leave(0);
    assert_int_equal(world.error, RUN_ERROR_NONE);
}

static void test_a_failure_is_told_with_the_last_line_of_stderr(void **state)
{
    (void)state;
    say(false, "this is no reason\n");
    say(true, "npm error first\nnpm error the last");
    say(true, " line\n \n");
    leave(7);
    assert_int_equal(world.error, RUN_ERROR_TEMPLATE_FALLBACK_FAILED);
    assert_non_null(strstr(world.message, "(exit status 7): npm error the last line"));
}

static void test_of_much_stderr_the_end_counts(void **state)
{
    static char much[100000];

    (void)state;
    memset(much, 'x', sizeof much - 1);
    say(true, "\n");
    say(true, much);
    say(true, "\nENOSPC");
    leave(7);
    assert_string_equal(world.message + strlen(world.message) - 8, ": ENOSPC");
}

static void test_two_minutes_are_enough(void **state)
{
    (void)state;
    assert_wait(fire_longest_timer(world.base), 120000, 120000);
    assert_int_equal(world.error, RUN_ERROR_TEMPLATE_FALLBACK_FAILED);
    assert_non_null(strstr(world.message, "took longer than 120 s"));
    assert_int_equal(world.open, 0);
}

static void test_a_lost_stream_is_told_as_it_is_but_for_the_start(void **state)
{
    (void)state;
    world.stream.handlers.on_lost(world.stream.handlers.context, RUN_ERROR_AGENT_START_FAILED, "no bash");
    assert_int_equal(world.error, RUN_ERROR_TEMPLATE_FALLBACK_FAILED);
    assert_string_equal(world.message, "no bash");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_npm_installs_the_pinned_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_failure_is_told_with_the_last_line_of_stderr, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_of_much_stderr_the_end_counts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_two_minutes_are_enough, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_lost_stream_is_told_as_it_is_but_for_the_start, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
