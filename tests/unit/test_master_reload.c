/*
 * Reloads in a row: how many old generations may drain, what becomes of a HUP that comes too early, and what the
 * service manager is told. See master_life.h.
 */
#include "tests/unit/master_life.h"

static void test_the_status_tells_workers_runs_and_addresses(void **state)
{
    struct server server = start_server("serve");

    (void)state;
    expect_told_of(&server, "READY=1", "\nSTATUS=2 workers, 0 runs, listening on 127.0.0.1:");
    kill(server.pid, SIGTTIN);
    expect_told(&server, "STATUS=3 workers, 0 runs, ");
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_refused_reload_says_why(void **state)
{
    struct server server = start_server("serve");

    (void)state;
    expect_told(&server, "READY=1");
    write_file(config_path, "backlog = 77\n");
    kill(server.pid, SIGHUP);
    expect_told_of(&server, "READY=1", "; reload refused: setting backlog changed, and needs a restart");
    write_file(config_path, "workers = 2\n");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1");
    expect_told(&server, "READY=1");
    kill(server.pid, SIGTTIN);
    expect_told(&server, "STATUS=3 workers, 0 runs, listening on 127.0.0.1:");
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

/* Ends the `count` oldest children: what a drain that has run its course looks like. */
static void end_oldest(const struct server *server, size_t count)
{
    pid_t children[16];
    size_t found = children_of(server->pid, children, COUNT(children));

    assert_true(found >= count);
    for (size_t i = 0; i < count; i++)
        kill(children[i], SIGKILL);
}

/* Deaf workers never end by themselves: two generations drain, the third reload waits. */
static void test_a_third_reload_waits_until_an_old_generation_is_gone(void **state)
{
    struct server server = start_server("deaf");

    (void)state;
    expect_told(&server, "READY=1");
    for (size_t i = 2; i <= 3; i++) {
        kill(server.pid, SIGHUP);
        expect_told(&server, "RELOADING=1");
        expect_told(&server, "READY=1");
        expect_children(&server, 2 * i, -1);
    }
    write_file(mode_path, "serve");
    kill(server.pid, SIGHUP);
    expect_told_of(&server, "STATUS=", "; the reload waits until an old generation has drained");
    expect_children(&server, 6, -1);
    kill(server.pid, SIGHUP); /* nothing more than what waits already */
    end_oldest(&server, 2);
    expect_told(&server, "RELOADING=1");
    expect_told(&server, "READY=1");
    expect_children(&server, 6, -1);
    end_oldest(&server, 4);
    expect_children(&server, 2, -1);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

/* As many as there are: the first of them, and one for all that came meanwhile. */
static void test_hups_during_a_reload_are_one_more_reload(void **state)
{
    struct server server = start_server("serve");
    pid_t first;

    (void)state;
    expect_told(&server, "READY=1");
    first = expect_children(&server, 2, -1);
    write_file(mode_path, "late");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1");
    expect_children(&server, 4, -1);
    write_file(config_path, "workers = 3\n");
    for (size_t i = 0; i < 3; i++)
        kill(server.pid, SIGHUP);
    write_file(mode_path, "serve");
    expect_told(&server, "READY=1");
    expect_told(&server, "RELOADING=1");
    expect_told_of(&server, "READY=1", "STATUS=3 workers");
    expect_children(&server, 3, first);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

/* The program of these tests is called "sandstorm", and is not in PATH. */
static void test_an_upgrade_to_no_program_changes_nothing(void **state)
{
    struct server server = start_server("serve");
    pid_t old;

    (void)state;
    expect_told(&server, "READY=1");
    old = expect_children(&server, 2, -1);
    kill(server.pid, SIGUSR2);
    expect_told_of(&server, "STATUS=2 workers", "; upgrade refused: cannot run sandstorm: No such file or directory");
    assert_int_equal(expect_children(&server, 2, -1), old);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_winch_drains_the_workers_and_a_hup_brings_new_ones(void **state)
{
    struct server server = start_server("serve");

    (void)state;
    expect_told(&server, "READY=1");
    kill(server.pid, SIGWINCH);
    expect_children(&server, 0, -1);
    expect_told_of(&server, "STATUS=0 workers, 0 runs, listening on 127.0.0.1:", "; drained by SIGWINCH");
    kill(server.pid, SIGHUP);
    expect_told_of(&server, "READY=1", "STATUS=2 workers, 0 runs, listening on 127.0.0.1:");
    expect_children(&server, 2, -1);
    kill(server.pid, SIGWINCH);
    expect_children(&server, 0, -1);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_status_tells_workers_runs_and_addresses),
        cmocka_unit_test(test_a_refused_reload_says_why),
        cmocka_unit_test(test_a_third_reload_waits_until_an_old_generation_is_gone),
        cmocka_unit_test(test_hups_during_a_reload_are_one_more_reload),
        cmocka_unit_test(test_an_upgrade_to_no_program_changes_nothing),
        cmocka_unit_test(test_winch_drains_the_workers_and_a_hup_brings_new_ones),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
