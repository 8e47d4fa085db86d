/*
 * The master's life, seen from outside: start, respawn, reload, silence, stop. See master_life.h.
 */
#include "common/clock.h"
#include "tests/unit/master_life.h"

#define REPLACEMENTS_MAX 5

/* --- promises ----------------------------------------------------------------------------------- */

static void test_ready_is_told_once_all_workers_are_and_term_ends_with_zero(void **state)
{
    struct server server = start_server("serve");

    (void)state;
    expect_told(&server, "READY=1");
    expect_children(&server, 2, -1);
    kill(server.pid, SIGTERM);
    expect_told(&server, "STOPPING=1");
    expect_exit(&server, 0);
}

/* How long it takes a fresh server to have another worker. */
static int64_t replacement_ms(void)
{
    struct server server = start_server("serve");
    pid_t victim;
    int64_t killed_ms, took_ms;

    expect_told(&server, "READY=1");
    victim = expect_children(&server, 2, -1);
    killed_ms = monotonic_ms();
    kill(victim, SIGKILL);
    expect_children(&server, 2, victim);
    took_ms = monotonic_ms() - killed_ms;
    kill(server.pid, SIGINT);
    expect_exit(&server, 0);
    return took_ms;
}

/* On a busy machine the best of a few shows it. */
static void test_a_killed_worker_is_replaced_within_a_second(void **state)
{
    int tries = 0;

    (void)state;
    while (replacement_ms() >= 1000)
        assert_true(++tries < REPLACEMENTS_MAX);
}

static void test_a_first_generation_that_cannot_start_ends_the_server(void **state)
{
    struct server server = start_server("boot");

    (void)state;
    expect_exit(&server, 1);
}

static void test_a_bad_project_ends_the_server(void **state)
{
    struct server server = start_server("project");

    (void)state;
    expect_exit(&server, 1);
}

static void test_a_history_that_cannot_be_restored_costs_no_start(void **state)
{
    struct server server = start_server("history");

    (void)state;
    expect_told(&server, "READY=1");
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_grown_history_is_compacted(void **state)
{
    struct server server = start_server("grown");
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;

    (void)state;
    expect_told(&server, "READY=1");
    while (access(compacted_path, F_OK) < 0 && monotonic_ms() < until_ms)
        poll(NULL, 0, BEAT_MS / 5);
    assert_int_equal(access(compacted_path, F_OK), 0);
    expect_children(&server, 2, -1); /* the child that did it was reaped */
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_reload_brings_new_workers_and_new_settings(void **state)
{
    struct server server = start_server("serve");
    pid_t old;

    (void)state;
    expect_told(&server, "READY=1");
    old = expect_children(&server, 2, -1);
    write_file(config_path, "workers = 3\n");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1\nMONOTONIC_USEC=");
    expect_told(&server, "READY=1");
    expect_children(&server, 3, old);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_bad_reload_changes_nothing(void **state)
{
    static const char *const bad_files[] = {"wurst = 1\n", "backlog = 77\n"};
    struct server server = start_server("serve");
    pid_t old;

    (void)state;
    expect_told(&server, "READY=1");
    old = expect_children(&server, 2, -1);
    for (size_t i = 0; i < COUNT(bad_files); i++) {
        write_file(config_path, bad_files[i]);
        kill(server.pid, SIGHUP);
        expect_told(&server, "RELOADING=1");
        expect_told(&server, "READY=1");
        assert_int_equal(expect_children(&server, 2, -1), old);
    }
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_reload_with_a_bad_project_changes_nothing(void **state)
{
    struct server server = start_server("serve");
    pid_t old;

    (void)state;
    expect_told(&server, "READY=1");
    old = expect_children(&server, 2, -1);
    write_file(mode_path, "project");
    write_file(config_path, "workers = 3\n");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1");
    expect_told(&server, "READY=1");
    assert_int_equal(expect_children(&server, 2, -1), old);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_reload_whose_workers_do_not_start_is_taken_back(void **state)
{
    struct server server = start_server("serve");
    pid_t old;

    (void)state;
    expect_told(&server, "READY=1");
    old = expect_children(&server, 2, -1);
    write_file(mode_path, "boot");
    write_file(config_path, "workers = 3\n");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1");
    expect_told(&server, "READY=1");
    assert_int_equal(expect_children(&server, 2, -1), old);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_one_worker_more_and_one_fewer(void **state)
{
    struct server server = start_server("serve");

    (void)state;
    expect_told(&server, "READY=1");
    kill(server.pid, SIGTTIN);
    expect_children(&server, 3, -1);
    kill(server.pid, SIGTTOU);
    expect_children(&server, 2, -1);
    kill(server.pid, SIGUSR1);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

/* Their successors are ready first, one at a time: while the first of them is late, both go on. */
static void test_workers_that_served_their_runs_are_replaced_one_by_one(void **state)
{
    struct server server = start_server("serve");
    pid_t spent[2], others[4];
    size_t count;

    (void)state;
    expect_told(&server, "READY=1");
    write_file(mode_path, "spent");
    write_file(config_path, "workers = 2\nworker_max_requests = 990\nworker_max_requests_jitter = 10\n");
    kill(server.pid, SIGHUP);
    expect_told(&server, "RELOADING=1");
    expect_told(&server, "READY=1");
    expect_children(&server, 2, -1);
    write_file(mode_path, "late");
    expect_children(&server, 3, -1);
    assert_int_equal(children_of(server.pid, spent, 2), 2);
    kill(server.pid, SIGTTIN);
    expect_children(&server, 4, -1);
    write_file(mode_path, "serve");
    expect_children(&server, 3, spent[0]);
    expect_children(&server, 3, spent[1]);
    count = children_of(server.pid, others, COUNT(others));
    for (size_t i = 0; i < count; i++)
        assert_true(others[i] != spent[0] && others[i] != spent[1]);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_silent_worker_is_replaced(void **state)
{
    struct server server = start_server("mute");
    pid_t mute;

    (void)state;
    expect_told(&server, "READY=1");
    mute = expect_children(&server, 2, -1);
    write_file(mode_path, "serve");
    expect_children(&server, 2, mute);
    kill(server.pid, SIGTERM);
    expect_exit(&server, 0);
}

static void test_a_worker_that_does_not_obey_is_killed_in_the_end(void **state)
{
    struct server server = start_server("deaf");

    (void)state;
    expect_told(&server, "READY=1");
    kill(server.pid, SIGTERM);
    expect_told(&server, "STOPPING=1");
    kill(server.pid, SIGTERM); /* the second one: no drain, only the time for deletions */
    expect_exit(&server, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ready_is_told_once_all_workers_are_and_term_ends_with_zero),
        cmocka_unit_test(test_a_killed_worker_is_replaced_within_a_second),
        cmocka_unit_test(test_a_first_generation_that_cannot_start_ends_the_server),
        cmocka_unit_test(test_a_bad_project_ends_the_server),
        cmocka_unit_test(test_a_history_that_cannot_be_restored_costs_no_start),
        cmocka_unit_test(test_a_grown_history_is_compacted),
        cmocka_unit_test(test_a_reload_brings_new_workers_and_new_settings),
        cmocka_unit_test(test_a_bad_reload_changes_nothing),
        cmocka_unit_test(test_a_reload_with_a_bad_project_changes_nothing),
        cmocka_unit_test(test_a_reload_whose_workers_do_not_start_is_taken_back),
        cmocka_unit_test(test_one_worker_more_and_one_fewer),
        cmocka_unit_test(test_workers_that_served_their_runs_are_replaced_one_by_one),
        cmocka_unit_test(test_a_silent_worker_is_replaced),
        cmocka_unit_test(test_a_worker_that_does_not_obey_is_killed_in_the_end),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
