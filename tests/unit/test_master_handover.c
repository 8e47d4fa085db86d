/* What a master tells the program that takes its place: it comes back as it was written, or is refused whole. */
#include "common/clock.h"
#include "master/handover.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static struct worker a_worker(int slot)
{
    return (struct worker){.pid = 1000 + slot,
                           .slot = slot,
                           .fd = 20 + slot,
                           .generation = 7,
                           .seat = (unsigned)slot % SETTINGS_WORKERS_MAX,
                           .state = slot % 2 == 0 ? CHILD_SERVING : CHILD_DRAINING,
                           .was_ready = true,
                           .is_unseen = slot % 3 == 0,
                           .started_ms = 123456789012 + slot,
                           .deadline_ms = -1,
                           .graceful_timeout_ms = 600000,
                           .worker_timeout_ms = 30000,
                           .run_limit = slot};
}

static struct handover *a_handover(void)
{
    struct handover *handover = handover_new();

    assert_non_null(handover);
    handover->generations = 9;
    handover->generation = 8;
    handover->has_auth = true;
    handover->scoreboard_fd = 5;
    handover->lock_fd = 6;
    handover->pid_file_fd = 10;
    handover->listeners = (struct listeners){
        .fds = {7, 8}, .count = 2, .about = {{.item = "localhost:1"}, {.item = "unix:/run/a b", .inode = 77}}};
    snprintf(handover->instance, sizeof handover->instance, "prod-1.a_b");
    handover->compactor = 4321;
    handover->settled_lines = 1234567890123;
    handover->has_runtime = true;
    handover->runtime.state = RUNTIME_SERVING;
    handover->runtime.pid = 99;
    handover->runtime.deadline_ms = -1;
    handover->runtime.socket.fd = 9;
    snprintf(handover->runtime.socket.path, sizeof handover->runtime.socket.path, "/run/a b/sandboxd.sock");
    handover->fixed = strdup("bind=127.0.0.1:8000\ninstance=\n");
    for (int i = 0; i < SCOREBOARD_SLOTS_MAX; i++)
        handover->workers[handover->worker_count++] = a_worker(i);
    return handover;
}

static struct handover *read_back(int fd)
{
    struct handover *handover = handover_read(fd);

    close(fd);
    return handover;
}

static void test_what_is_written_is_read(void **state)
{
    struct handover *out = a_handover();
    struct handover *in = read_back(handover_write(out));

    (void)state;
    assert_non_null(in);
    assert_int_equal(in->generations, 9);
    assert_int_equal(in->generation, 8);
    assert_true(in->has_auth);
    assert_int_equal(in->scoreboard_fd, 5);
    assert_int_equal(in->lock_fd, 6);
    assert_int_equal(in->pid_file_fd, 10);
    assert_int_equal(in->listeners.count, 2);
    assert_int_equal(in->listeners.fds[1], 8);
    assert_string_equal(in->listeners.about[1].item, "unix:/run/a b");
    assert_int_equal(in->listeners.about[1].inode, 77);
    assert_string_equal(in->instance, "prod-1.a_b");
    assert_int_equal(in->compactor, 4321);
    assert_int_equal(in->settled_lines, 1234567890123);
    assert_true(in->has_runtime);
    assert_int_equal(in->runtime.pid, 99);
    assert_int_equal(in->runtime.owner_pipe[0], -1);
    assert_string_equal(in->runtime.socket.path, "/run/a b/sandboxd.sock");
    assert_string_equal(in->runtime.socket.directory, "");
    assert_string_equal(in->fixed, out->fixed);
    assert_int_equal(in->worker_count, SCOREBOARD_SLOTS_MAX);
    for (size_t i = 0; i < in->worker_count; i++)
        assert_memory_equal(&in->workers[i], &out->workers[i], sizeof in->workers[i]);
    handover_free(in);
    handover_free(out);
}

static int text_fd(const char *text)
{
    int fd = memfd_create("text", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void test_what_is_not_understood_is_refused(void **state)
{
    static const char *const texts[] = {
        "",
        "sandstorm-handover 3\nend\n",
        "sandstorm-handover 2\n",
        "sandstorm-handover 2\nauth 1\n",
        "sandstorm-handover 2\nauth 1",
        "sandstorm-handover 2\nwurst 1\nend\n",
        "sandstorm-handover 2\nauth\nend\n",
        "sandstorm-handover 2\nworker 1 2 3\nend\n",
        "sandstorm-handover 2\nworker 10 1024 3 1 0 1 1 0 0 0 0 0 0\nend\n",
        "sandstorm-handover 2\nworker 10 1 3 1 256 1 1 0 0 0 0 0 0\nend\n",
        "sandstorm-handover 2\nworker 0 1 3 1 0 1 1 0 0 0 0 0 0\nend\n",
        "sandstorm-handover 2\nworker 10 1 3 1 0 7 1 0 0 0 0 0 0\nend\n",
    };
    struct handover *good = read_back(text_fd("sandstorm-handover 2\nworker 10 1 3 1 0 1 1 0 0 0 0 0 0\nend\n"));

    (void)state;
    assert_non_null(good);
    handover_free(good);
    for (size_t i = 0; i < COUNT(texts); i++)
        assert_null(read_back(text_fd(texts[i])));
}

static void test_what_cannot_be_one_is_not_read(void **state)
{
    int fd = memfd_create("text", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(ftruncate(fd, 64 << 20), 0);
    assert_null(read_back(fd));
    assert_null(handover_read(fd)); /* closed by now */
}

static void test_descriptors_are_kept_over_an_exec_or_not(void **state)
{
    struct handover *handover = handover_new();
    int fd = text_fd("x"), other = text_fd("y");

    (void)state;
    assert_non_null(handover);
    handover->scoreboard_fd = fd;
    handover->workers[handover->worker_count++] = (struct worker){.fd = other};
    handover_keep(handover, true);
    assert_int_equal(fcntl(fd, F_GETFD), 0);
    assert_int_equal(fcntl(other, F_GETFD), 0);
    handover_keep(handover, false);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(fcntl(other, F_GETFD), FD_CLOEXEC);
    close(fd);
    close(other);
    handover_free(handover);
}

static void test_a_handover_is_offered_once(void **state)
{
    int fd = text_fd("x");
    char text[16];

    (void)state;
    assert_int_equal(handover_offered(), -1);
    snprintf(text, sizeof text, "%d", fd);
    setenv(HANDOVER_VARIABLE, text, 1);
    assert_int_equal(handover_offered(), fd);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_int_equal(handover_offered(), -1);
    close(fd);
}

static struct settings_load *load_with(const char *option, const char *value)
{
    char *const words[] = {"sandstorm", "--workers", "3", (char *)option, (char *)value, NULL};

    return settings_load(COUNT(words) - 1, words, NULL);
}

static void test_only_settings_that_a_restart_changes_are_compared(void **state)
{
    struct settings_load *before = load_with("--max-runs", "10");
    struct settings_load *same = load_with("--max-runs", "10"), *other = load_with("--max-runs", "11");
    struct settings_load *unset = load_with("--timeout", "77");
    struct handover *handover = handover_new();

    (void)state;
    assert_non_null(handover);
    handover->fixed = settings_fixed_text(before);
    assert_non_null(strstr(handover->fixed, "max_runs=10\n"));
    assert_null(strstr(handover->fixed, "workers="));
    assert_true(handover_check(handover, same));
    assert_false(handover_check(handover, other));
    assert_false(handover_check(handover, unset));
    free(handover->fixed);
    handover->fixed = strdup("a_setting_of_another_version=1\n");
    assert_true(handover_check(handover, same));
    handover->has_auth = true;
    assert_false(handover_check(handover, same));
    handover_free(handover);
    settings_load_free(before);
    settings_load_free(same);
    settings_load_free(other);
    settings_load_free(unset);
}

static void ignore_admitted(struct worker *worker, void *owner)
{
    (void)worker;
    (void)owner;
}

static void ignore_buried(struct worker *worker, bool finished_job, void *owner)
{
    (void)worker;
    (void)finished_job;
    (void)owner;
}

/* Its heartbeat is in another scoreboard, and its runs are: neither is missed here. */
static void test_an_unseen_worker_is_left_alone_with_its_sandboxes(void **state)
{
    static const struct workers_callbacks callbacks = {.admitted = ignore_admitted, .buried = ignore_buried};
    struct scoreboard *scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 1, .run_history = 1}, NULL);
    struct workers *workers = workers_new(scoreboard, &callbacks, NULL);
    struct worker unseen = {.pid = getpid(),
                            .slot = 3,
                            .fd = -1,
                            .generation = 2,
                            .state = CHILD_DRAINING,
                            .is_unseen = true,
                            .deadline_ms = -1,
                            .worker_timeout_ms = 1000};

    (void)state;
    assert_non_null(workers);
    workers_adopt(workers, &unseen);
    assert_int_equal(atomic_load(&scoreboard->reconcile_due_ms), INT64_MAX);
    assert_int_equal(atomic_load(&scoreboard->slots[3].state), WORKER_DRAINING);
    assert_int_equal(scoreboard_take_slot(scoreboard, 5), 0);
    for (int i = 1; i <= 2; i++)
        assert_int_equal(scoreboard_take_slot(scoreboard, 5), i);
    assert_int_equal(scoreboard_take_slot(scoreboard, 5), 4);
    atomic_store(&scoreboard->slots[3].heartbeat_ms, 0);
    workers_tick(workers, monotonic_ms(), 0); /* would send SIGABRT to this process */
    assert_int_equal(workers_count_in(workers, CHILD_DRAINING), 1);
    assert_true(workers_reaped(workers, getpid(), 0));
    assert_int_equal(atomic_load(&scoreboard->reconcile_due_ms), 0);
    assert_int_equal(atomic_load(&scoreboard->slots[3].state), WORKER_FREE);
    workers_free(workers);
    scoreboard_free(scoreboard);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_written_is_read),
        cmocka_unit_test(test_what_is_not_understood_is_refused),
        cmocka_unit_test(test_what_cannot_be_one_is_not_read),
        cmocka_unit_test(test_descriptors_are_kept_over_an_exec_or_not),
        cmocka_unit_test(test_a_handover_is_offered_once),
        cmocka_unit_test(test_an_unseen_worker_is_left_alone_with_its_sandboxes),
        cmocka_unit_test(test_only_settings_that_a_restart_changes_are_compared),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
