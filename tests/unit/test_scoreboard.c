/* Admission over processes is exact, and a dead worker's runs are given back. */
#include "common/clock.h"
#include "common/scoreboard.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_RUNS 100
#define CHILDREN 4
#define ATTEMPTS 1000

static struct scoreboard *new_scoreboard(unsigned max_runs)
{
    return scoreboard_new(&(struct scoreboard_sizes){.max_runs = max_runs, .run_history = 1}, NULL);
}

/* What a worker does in the race: takes whatever it is given, and leaves without giving anything back. */
static _Noreturn void admit_all_and_die(struct scoreboard *scoreboard, int slot)
{
    for (int i = 0; i < ATTEMPTS; i++) {
        if (!scoreboard_admit_run(scoreboard, slot) && atomic_load(&scoreboard->live_runs) > MAX_RUNS)
            _exit(1);
    }
    _exit(0);
}

static void test_admission_is_exact_over_processes_and_release_gives_back(void **state)
{
    struct scoreboard *scoreboard = new_scoreboard(MAX_RUNS);
    int slots[CHILDREN];
    unsigned given_back = 0;

    (void)state;
    assert_non_null(scoreboard);
    for (int i = 0; i < CHILDREN; i++) {
        slots[i] = scoreboard_take_slot(scoreboard, 1);
        assert_true(slots[i] >= 0);
    }
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
            admit_all_and_die(scoreboard, slots[i]);
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status;

        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
    }
    assert_int_equal(atomic_load(&scoreboard->live_runs), MAX_RUNS);
    for (int i = 0; i < CHILDREN; i++)
        given_back += scoreboard_release_slot(scoreboard, slots[i]);
    assert_int_equal(given_back, MAX_RUNS);
    assert_int_equal(atomic_load(&scoreboard->live_runs), 0);
    scoreboard_free(scoreboard);
}

static void test_an_ended_run_makes_room_and_is_counted(void **state)
{
    struct scoreboard *scoreboard = new_scoreboard(1);
    int slot;

    (void)state;
    assert_non_null(scoreboard);
    slot = scoreboard_take_slot(scoreboard, 7);
    assert_true(scoreboard_admit_run(scoreboard, slot));
    assert_false(scoreboard_admit_run(scoreboard, slot));
    scoreboard_end_run(scoreboard, slot);
    assert_true(scoreboard_admit_run(scoreboard, slot));
    assert_int_equal(atomic_load(&scoreboard->slots[slot].ended_runs), 1);
    assert_int_equal(atomic_load(&scoreboard->slots[slot].live_runs), 1);
    scoreboard_free(scoreboard);
}

static void test_failed_deletions_are_summed_without_those_of_the_dead(void **state)
{
    struct scoreboard *scoreboard = new_scoreboard(MAX_RUNS);
    int first, second;

    (void)state;
    assert_non_null(scoreboard);
    first = scoreboard_take_slot(scoreboard, 1);
    second = scoreboard_take_slot(scoreboard, 1);
    atomic_store(&scoreboard->slots[first].failed_kills, 2);
    atomic_store(&scoreboard->slots[second].failed_kills, 3);
    assert_int_equal(scoreboard_failed_kills(scoreboard), 5);
    (void)scoreboard_release_slot(scoreboard, first);
    assert_int_equal(scoreboard_failed_kills(scoreboard), 3);
    scoreboard_free(scoreboard);
}

static void test_a_slot_is_taken_once_and_starts_clean(void **state)
{
    struct scoreboard *scoreboard = new_scoreboard(10);
    int64_t before_ms;
    int slot;

    (void)state;
    assert_non_null(scoreboard);
    for (int i = 0; i < SCOREBOARD_SLOTS_MAX; i++)
        assert_int_equal(scoreboard_take_slot(scoreboard, 1), i);
    assert_int_equal(scoreboard_take_slot(scoreboard, 1), -1);
    assert_true(scoreboard_admit_run(scoreboard, 5));
    scoreboard_end_run(scoreboard, 5);
    assert_int_equal(scoreboard_release_slot(scoreboard, 5), 0);
    before_ms = monotonic_ms();
    slot = scoreboard_take_slot(scoreboard, 2);
    assert_int_equal(slot, 5);
    assert_int_equal(atomic_load(&scoreboard->slots[slot].state), WORKER_STARTING);
    assert_int_equal(atomic_load(&scoreboard->slots[slot].generation), 2);
    assert_int_equal(atomic_load(&scoreboard->slots[slot].ended_runs), 0);
    assert_in_range(atomic_load(&scoreboard->slots[slot].heartbeat_ms), before_ms, monotonic_ms());
    scoreboard_free(scoreboard);
}

static void test_a_dead_worker_is_known_by_its_serial(void **state)
{
    struct scoreboard *scoreboard = new_scoreboard(10);
    int slot = scoreboard_take_slot(scoreboard, 1);
    uint64_t first = atomic_load(&scoreboard->slots[slot].serial);

    (void)state;
    assert_int_equal(SCOREBOARD_SERIAL_SLOT(first), slot);
    assert_true(scoreboard_is_alive(scoreboard, first));
    assert_false(scoreboard_is_alive(scoreboard, 0));
    (void)scoreboard_release_slot(scoreboard, slot);
    assert_false(scoreboard_is_alive(scoreboard, first));
    assert_int_equal(scoreboard_take_slot(scoreboard, 1), slot);
    assert_false(scoreboard_is_alive(scoreboard, first));
    scoreboard_free(scoreboard);
}

static void test_it_is_mapped_again_only_by_the_same_program(void **state)
{
    int fd = -1;
    struct scoreboard *made = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 3, .run_history = 4}, &fd);
    struct scoreboard *seen = scoreboard_map(fd, false);

    (void)state;
    assert_non_null(seen);
    assert_int_equal(scoreboard_take_slot(made, 9), 0);
    assert_int_equal(atomic_load(&seen->slots[0].generation), 9);
    scoreboard_free(seen);
    made->layout++;
    assert_null(scoreboard_map(fd, false));
    assert_int_equal(errno, EPROTO);
    scoreboard_free(made);
    close(fd);
}

static void test_a_file_that_is_none_is_not_mapped(void **state)
{
    int fd = memfd_create("short", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(ftruncate(fd, 10), 0);
    assert_null(scoreboard_map(fd, true));
    assert_int_equal(errno, EPROTO);
    assert_int_equal(ftruncate(fd, sizeof(struct scoreboard)), 0);
    assert_null(scoreboard_map(fd, true));
    assert_int_equal(errno, EPROTO);
    close(fd);
    assert_null(scoreboard_map(fd, true));
    assert_int_equal(errno, EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_dead_worker_is_known_by_its_serial),
        cmocka_unit_test(test_it_is_mapped_again_only_by_the_same_program),
        cmocka_unit_test(test_a_file_that_is_none_is_not_mapped),
        cmocka_unit_test(test_admission_is_exact_over_processes_and_release_gives_back),
        cmocka_unit_test(test_an_ended_run_makes_room_and_is_counted),
        cmocka_unit_test(test_failed_deletions_are_summed_without_those_of_the_dead),
        cmocka_unit_test(test_a_slot_is_taken_once_and_starts_clean),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
