/*
 * The master's life with a worker of our own in place of the real one: start, respawn, reload, silence, stop. It runs
 * in a forked process and is seen from outside: by the processes it has, by its words to the service manager, by its
 * exit code. The worker obeys the file `mode` of the test's directory: "serve", "boot" (exits before ready), "mute"
 * (ready, then no heartbeat), "deaf" (ready, ignores what the master says), "project" (the project is bad), "history"
 * (it cannot be restored), "grown" (it grows to eleven lines of one run).
 */
#include "common/scoreboard.h"
#include "master/master.h"
#include "tests/unit/unit.h"
#include "worker/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Longest wait for anything that must happen: generous, for valgrind on a loaded machine. */
#define PATIENCE_MS 20000
#define BEAT_MS     50

static char directory[] = "/tmp/sandstorm-life-XXXXXX";
static char runner_path[64], mode_path[64], config_path[64], notify_path[64], compacted_path[64], state_path[64];

/* --- the worker of these tests ------------------------------------------------------------------ */

static bool mode_is(const char *wanted)
{
    char mode[16] = "";
    FILE *in = fopen(mode_path, "r");

    if (in == NULL)
        return false;
    if (fscanf(in, "%15s", mode) != 1)
        *mode = '\0';
    fclose(in);
    return strcmp(mode, wanted) == 0;
}

bool worker_check_project(const char *project_dir, struct project_store *store)
{
    (void)project_dir;
    project_store_put(store, NULL, 0, RUNTIME_AUTO);
    return !mode_is("project");
}

bool worker_restore_history(const char *state_dir, struct scoreboard *scoreboard)
{
    assert_string_equal(state_dir, state_path);
    atomic_store(&scoreboard->ended_runs, 1);
    atomic_store(&scoreboard->history_lines, 1);
    return !mode_is("history");
}

bool worker_compact_history(const char *state_dir, struct scoreboard *scoreboard)
{
    int fd = open(compacted_path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    assert_string_equal(state_dir, state_path);
    atomic_store(&scoreboard->history_lines, 1);
    return fd >= 0;
}

int worker_main(const struct worker_context *context)
{
    const char ready = WORKER_SAYS_READY;
    struct worker_slot *slot = &context->scoreboard->slots[context->slot];
    bool is_mute = mode_is("mute"), is_deaf = mode_is("deaf");

    if (mode_is("grown"))
        atomic_store(&context->scoreboard->history_lines, 11);
    if (mode_is("boot"))
        return WORKER_EXIT_BOOT;
    if (send(context->master_fd, &ready, 1, MSG_NOSIGNAL) != 1)
        return WORKER_EXIT_FAILED;
    for (;;) {
        struct pollfd fd = {.fd = context->master_fd, .events = POLLIN};
        char said;

        if (is_mute || is_deaf)
            poll(NULL, 0, BEAT_MS);
        else if (poll(&fd, 1, BEAT_MS) > 0 && recv(context->master_fd, &said, 1, 0) >= 0)
            return WORKER_EXIT_OK; /* nothing to drain: every order, and the master's death, means go */
        if (getppid() == 1 && is_deaf)
            return WORKER_EXIT_FAILED;
        if (!is_mute)
            atomic_store(&slot->heartbeat_ms, monotonic_ms());
    }
}

/* --- seen from outside -------------------------------------------------------------------------- */

struct server {
    pid_t pid;
    int notify_fd; /* what it tells its service manager */
};

static void write_file(const char *path, const char *text)
{
    char fresh[80];
    FILE *out;

    snprintf(fresh, sizeof fresh, "%s.new", path);
    out = fopen(fresh, "w");
    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(rename(fresh, path), 0);
}

/* Starts a master that serves with the fake worker. */
static struct server start_server(const char *mode)
{
    struct server server;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *const words[] = {"sandstorm", "--config",   config_path, "--bind",    "127.0.0.1:0", "--agent-runner",
                           runner_path, "--max-runs", "10",        "--runtime", "e2b",         "--project-dir",
                           directory,   NULL};

    unlink(notify_path);
    snprintf(address.sun_path, sizeof address.sun_path, "%s", notify_path);
    server.notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.notify_fd, (struct sockaddr *)&address, sizeof address), 0);
    setenv("NOTIFY_SOCKET", notify_path, 1);
    write_file(mode_path, mode);
    write_file(config_path, "workers = 2\ngraceful_timeout = 60\nworker_timeout = 2\n");
    server.pid = fork();
    assert_true(server.pid >= 0);
    if (server.pid == 0)
        exit(master_run(COUNT(words) - 1, words, settings_load(COUNT(words) - 1, words, NULL)));
    return server;
}

/* Waits for a datagram that begins with these words. */
static void expect_told(const struct server *server, const char *wanted)
{
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;
    char told[512] = "";

    while (monotonic_ms() < until_ms) {
        struct pollfd fd = {.fd = server->notify_fd, .events = POLLIN};
        ssize_t n;

        if (poll(&fd, 1, BEAT_MS) <= 0)
            continue;
        n = recv(server->notify_fd, told, sizeof told - 1, 0);
        told[n > 0 ? n : 0] = '\0';
        if (strncmp(told, wanted, strlen(wanted)) == 0)
            return;
    }
    fail_msg("not told \"%s\"; last heard: %s", wanted, told);
}

/* The children of a process, at most `max`; returns how many. */
static size_t children_of(pid_t pid, pid_t *out, size_t max)
{
    char path[64];
    size_t count = 0;
    FILE *in;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    in = fopen(path, "r");
    if (in == NULL)
        return 0;
    while (count < max && fscanf(in, "%d", &out[count]) == 1)
        count++;
    fclose(in);
    return count;
}

/* Waits until the master has `count` children and none of them is `gone`. Returns the first. */
static pid_t expect_children(const struct server *server, size_t count, pid_t gone)
{
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;
    pid_t children[16];
    size_t found = 0;

    while (monotonic_ms() < until_ms) {
        bool seen = false;

        found = children_of(server->pid, children, COUNT(children));
        for (size_t i = 0; i < found; i++)
            seen = seen || children[i] == gone;
        if (found == count && !seen)
            return children[0];
        poll(NULL, 0, BEAT_MS / 5);
    }
    fail_msg("%zu children instead of %zu", found, count);
    return -1;
}

static void expect_exit(struct server *server, int code)
{
    int64_t until_ms = monotonic_ms() + 2 * PATIENCE_MS;
    int status = -1;
    pid_t reaped = 0;

    while (reaped == 0 && monotonic_ms() < until_ms) {
        reaped = waitpid(server->pid, &status, WNOHANG);
        poll(NULL, 0, BEAT_MS / 5);
    }
    close(server->notify_fd);
    assert_int_equal(reaped, server->pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), code);
}

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

static void test_a_killed_worker_is_replaced_within_a_second(void **state)
{
    struct server server = start_server("serve");
    pid_t victim;
    int64_t killed_ms;

    (void)state;
    expect_told(&server, "READY=1");
    victim = expect_children(&server, 2, -1);
    killed_ms = monotonic_ms();
    kill(victim, SIGKILL);
    expect_children(&server, 2, victim);
    assert_true(monotonic_ms() - killed_ms < 1000);
    kill(server.pid, SIGINT);
    expect_exit(&server, 0);
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
    kill(server.pid, SIGUSR2);
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

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(runner_path, sizeof runner_path, "%s/runner.mjs", directory);
    snprintf(mode_path, sizeof mode_path, "%s/mode", directory);
    snprintf(config_path, sizeof config_path, "%s/sandstorm.conf", directory);
    snprintf(notify_path, sizeof notify_path, "%s/notify", directory);
    snprintf(compacted_path, sizeof compacted_path, "%s/compacted", directory);
    snprintf(state_path, sizeof state_path, "%s/.sandstorm", directory);
    write_file(runner_path, "// not run here\n");
    return 0;
}

static int tear_down(void **state)
{
    char lock_path[96], instance_path[96];
    const char *const made[] = {runner_path,    mode_path, config_path,  notify_path,
                                compacted_path, lock_path, instance_path};

    (void)state;
    snprintf(lock_path, sizeof lock_path, "%s/lock", state_path);
    snprintf(instance_path, sizeof instance_path, "%s/instance", state_path);
    for (size_t i = 0; i < COUNT(made); i++)
        unlink(made[i]);
    return rmdir(state_path) | rmdir(directory);
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
        cmocka_unit_test(test_a_silent_worker_is_replaced),
        cmocka_unit_test(test_a_worker_that_does_not_obey_is_killed_in_the_end),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
