/* pace: what one sandbox may use of what all share. */
#include "sandboxd/pace.h"
#include "tests/unit/unit.h"

/* A long uptime, so that a clock in the wrong unit would overflow. */
#define START_MS (INT64_C(50) * 365 * 24 * 3600 * 1000)

static void test_a_burst_is_free_and_more_waits(void **state)
{
    struct pace pace = {0};

    (void)state;
    assert_int_equal(pace_use(&pace, PACE_BURST_BYTES, START_MS), 0);
    assert_int_equal(pace_use(&pace, PACE_BYTES_PER_S / 10, START_MS), 100);
    assert_int_equal(pace_use(&pace, 0, START_MS + 100), 0);
    assert_true(pace_use(&pace, 1000000, START_MS + 100) > 0);
}

static void test_who_waits_as_told_has_its_rate(void **state)
{
    struct pace pace = {0};
    int64_t now_ms = START_MS, used_bytes = 0;

    (void)state;
    while (now_ms < START_MS + 10000) {
        now_ms += pace_use(&pace, 65536, now_ms);
        used_bytes += 65536;
    }
    assert_in_range(used_bytes, 9 * PACE_BYTES_PER_S, 10 * PACE_BYTES_PER_S + PACE_BURST_BYTES + 65536);
}

static void test_a_rest_gives_one_burst_and_not_more(void **state)
{
    struct pace pace = {0};

    (void)state;
    assert_true(pace_use(&pace, 10 * PACE_BURST_BYTES, START_MS) > 0);
    assert_int_equal(pace_use(&pace, PACE_BURST_BYTES, START_MS + 3600 * 1000), 0);
    assert_true(pace_use(&pace, 1, START_MS + 3600 * 1000) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_burst_is_free_and_more_waits),
        cmocka_unit_test(test_who_waits_as_told_has_its_rate),
        cmocka_unit_test(test_a_rest_gives_one_burst_and_not_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
