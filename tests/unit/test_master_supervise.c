/* The supervision table and the throttle of respawns, without a process. */
#include "master/supervise.h"
#include "tests/unit/unit.h"

static void expect(enum child_state state, enum child_event event, enum child_action action, enum child_state next)
{
    struct supervise_step step = supervise_decide(state, event);

    if (step.action != action || step.next != next)
        fail_msg("%s, event %d: action %d, then %s", supervise_state_name(state), (int)event, (int)step.action,
                 supervise_state_name(step.next));
}

static void test_a_worker_serves_once_it_is_ready(void **state)
{
    (void)state;
    expect(CHILD_STARTING, EVENT_READY, ACTION_ADMIT, CHILD_SERVING);
    expect(CHILD_SERVING, EVENT_READY, ACTION_NONE, CHILD_SERVING);
}

static void test_a_silent_worker_is_aborted_then_killed(void **state)
{
    (void)state;
    for (enum child_state child = CHILD_STARTING; child <= CHILD_ENDING; child++)
        expect(child, EVENT_SILENT, ACTION_ABORT, CHILD_ABORTING);
    expect(CHILD_ABORTING, EVENT_SILENT, ACTION_NONE, CHILD_ABORTING);
    expect(CHILD_ABORTING, EVENT_LATE, ACTION_KILL, CHILD_KILLED);
    expect(CHILD_KILLED, EVENT_LATE, ACTION_NONE, CHILD_KILLED);
}

static void test_the_stop_ladder_only_goes_down(void **state)
{
    (void)state;
    expect(CHILD_SERVING, EVENT_DRAIN, ACTION_SAY_DRAIN, CHILD_DRAINING);
    expect(CHILD_SERVING, EVENT_STOP, ACTION_SAY_STOP, CHILD_STOPPING);
    expect(CHILD_DRAINING, EVENT_STOP, ACTION_SAY_STOP, CHILD_DRAINING);
    expect(CHILD_STOPPING, EVENT_END, ACTION_SAY_END, CHILD_ENDING);
    expect(CHILD_DRAINING, EVENT_END, ACTION_SAY_END, CHILD_ENDING);
    expect(CHILD_ENDING, EVENT_STOP, ACTION_NONE, CHILD_ENDING);
    expect(CHILD_STOPPING, EVENT_LATE, ACTION_KILL, CHILD_KILLED);
    expect(CHILD_ENDING, EVENT_LATE, ACTION_KILL, CHILD_KILLED);
}

static void test_an_exit_is_buried_in_every_state(void **state)
{
    (void)state;
    for (enum child_state child = CHILD_STARTING; child < CHILD_STATES; child++)
        assert_int_equal(supervise_decide(child, EVENT_EXITED).action, ACTION_BURY);
}

static void test_patience_covers_what_a_worker_may_take(void **state)
{
    (void)state;
    assert_int_equal(supervise_patience_ms(CHILD_SERVING, 1000), -1);
    assert_true(supervise_patience_ms(CHILD_STOPPING, 600000) > 600000 + 10000);
    assert_true(supervise_patience_ms(CHILD_ENDING, 600000) > 10000);
    assert_true(supervise_patience_ms(CHILD_ENDING, 600000) < 60000);
}

static void test_early_deaths_are_throttled_and_a_finished_job_clears_it(void **state)
{
    static const int64_t delays_ms[] = {0, 1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
    struct throttle throttle = {0};

    (void)state;
    for (size_t i = 0; i < COUNT(delays_ms); i++) {
        throttle_note_death(&throttle, 1000000, 100, false);
        assert_int_equal(throttle.not_before_ms - 1000000, delays_ms[i]);
    }
    throttle_note_death(&throttle, 1000000, 100, true);
    assert_int_equal(throttle.not_before_ms, 1000000);
    throttle_note_death(&throttle, 1000000, 100, false);
    assert_int_equal(throttle.not_before_ms, 1000000);
    throttle_note_death(&throttle, 1000000, THROTTLE_EARLY_MS, false);
    assert_int_equal(throttle.early_deaths, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_serves_once_it_is_ready),
        cmocka_unit_test(test_a_silent_worker_is_aborted_then_killed),
        cmocka_unit_test(test_the_stop_ladder_only_goes_down),
        cmocka_unit_test(test_an_exit_is_buried_in_every_state),
        cmocka_unit_test(test_patience_covers_what_a_worker_may_take),
        cmocka_unit_test(test_early_deaths_are_throttled_and_a_finished_job_clears_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
