/* Totals over worker slots, deaths and processes; labels that come from outside. */
#include "common/metrics.h"
#include "tests/unit/unit.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILDREN 2 /* as many as surely run at once */
#define ROUNDS   100
#define LABELS   (METRICS_LABELS_MAX / CHILDREN)
#define SECOND   1000000

static struct scoreboard *scoreboard;

static int set_up(void **state)
{
    (void)state;
    scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 2, .run_history = 1}, NULL);
    return scoreboard != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    metrics_open(NULL, 0);
    scoreboard_free(scoreboard);
    return 0;
}

/* From now on this process is the worker of a new slot. */
static int become_worker(void)
{
    int slot = scoreboard_take_slot(scoreboard, 1);

    assert_true(slot >= 0);
    metrics_open(scoreboard, slot);
    return slot;
}

/* The row of a label's value; -1: it has none. */
static int row_of(enum metric_label label, const char *wanted)
{
    char value[METRICS_LABEL_MAX_BYTES];
    size_t length;

    for (unsigned row = 0; row < METRICS_ROWS; row++) {
        if (metrics_row(scoreboard, label, row, value, &length) && length == strlen(wanted) &&
            memcmp(value, wanted, length) == 0)
            return (int)row;
    }
    return -1;
}

static uint64_t total(enum metric metric, const char *label, unsigned column)
{
    uint64_t totals[METRICS_COLUMNS_MAX];
    int row = row_of(metrics_family(metric)->label, label);

    assert_true(row >= 0);
    metrics_read(scoreboard, metric, (unsigned)row, totals);
    return totals[column];
}

static void test_totals_are_over_all_slots(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 3; i++) {
        (void)become_worker();
        metrics_add(METRIC_EVENTS, i);
        metrics_count(METRIC_REQUESTS, "opus", METRIC_OUTCOME_ERROR, i);
        metrics_count(METRIC_REQUESTS, "haiku", METRIC_OUTCOME_OK, 1);
    }
    assert_int_equal(metrics_total(scoreboard, METRIC_EVENTS, 0), 6);
    assert_int_equal(total(METRIC_REQUESTS, "opus", METRIC_OUTCOME_ERROR), 6);
    assert_int_equal(total(METRIC_REQUESTS, "opus", METRIC_OUTCOME_OK), 0);
    assert_int_equal(metrics_total(scoreboard, METRIC_REQUESTS, METRIC_OUTCOME_OK), 3);
}

static void test_a_slots_next_worker_goes_on_from_there(void **state)
{
    int slot = become_worker();

    (void)state;
    metrics_add(METRIC_EVENTS, 5);
    metrics_observe(METRIC_REQUEST_DURATION, "opus", SECOND);
    (void)scoreboard_release_slot(scoreboard, slot);
    assert_int_equal(metrics_total(scoreboard, METRIC_EVENTS, 0), 5); /* nobody is in the slot */
    assert_int_equal(become_worker(), slot);
    metrics_add(METRIC_EVENTS, 2);
    metrics_observe(METRIC_REQUEST_DURATION, "opus", SECOND);
    assert_int_equal(metrics_total(scoreboard, METRIC_EVENTS, 0), 7);
    assert_int_equal(total(METRIC_REQUEST_DURATION, "opus", METRICS_BUCKETS), 2 * SECOND);
}

static void test_without_a_slot_nothing_is_counted(void **state)
{
    (void)state;
    metrics_open(NULL, 0);
    metrics_add(METRIC_EVENTS, 1);
    metrics_count(METRIC_ERRORS, "auth", 0, 1);
    metrics_observe(METRIC_FIRST_EVENT, NULL, 1);
    (void)become_worker();
    assert_int_equal(metrics_total(scoreboard, METRIC_EVENTS, 0), 0);
    assert_int_equal(row_of(METRIC_LABEL_ERROR_TYPE, "auth"), -1);
}

static void test_a_duration_falls_into_the_first_bucket_that_holds_it(void **state)
{
    static const struct {
        int64_t us;
        const char *bound;
    } cases[] = {{-5, "0.1"},        {0, "0.1"},          {100000, "0.1"},           {100001, "0.25"},
                 {SECOND, "1"},      {SECOND + 1, "2.5"}, {3600LL * SECOND, "3600"}, {3600LL * SECOND + 1, "+Inf"},
                 {INT64_MAX, "+Inf"}};

    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t totals[METRICS_COLUMNS_MAX];

        (void)set_up(state);
        (void)become_worker();
        metrics_observe(METRIC_FIRST_EVENT, NULL, cases[i].us);
        metrics_read(scoreboard, METRIC_FIRST_EVENT, 0, totals);
        for (unsigned bucket = 0; bucket < METRICS_BUCKETS; bucket++)
            assert_int_equal(totals[bucket], strcmp(metrics_bucket_bound(bucket), cases[i].bound) == 0);
        assert_int_equal(totals[METRICS_BUCKETS], cases[i].us > 0 ? cases[i].us : 0);
        (void)tear_down(state);
    }
    (void)set_up(state);
}

static void test_the_sixty_fifth_value_is_other(void **state)
{
    char model[16];

    (void)state;
    (void)become_worker();
    metrics_count(METRIC_REQUESTS, "other", METRIC_OUTCOME_OK, 1); /* one who is called so is no second series */
    for (int i = 0; i < METRICS_LABELS_MAX + 3; i++) {
        snprintf(model, sizeof model, "model-%d", i);
        metrics_count(METRIC_REQUESTS, model, METRIC_OUTCOME_OK, 1);
        metrics_count(METRIC_REQUESTS, model, METRIC_OUTCOME_OK, 1);
    }
    assert_int_equal(total(METRIC_REQUESTS, "model-63", METRIC_OUTCOME_OK), 2);
    assert_int_equal(row_of(METRIC_LABEL_MODEL, "model-64"), -1);
    assert_int_equal(total(METRIC_REQUESTS, "other", METRIC_OUTCOME_OK), 7);
    metrics_count(METRIC_SANDBOX_CALLS, "200", METRIC_OPERATION_LIST, 1); /* each label has its own room */
    assert_int_equal(total(METRIC_SANDBOX_CALLS, "200", METRIC_OPERATION_LIST), 1);
}

static void test_a_value_is_cut_between_characters(void **state)
{
    static const struct {
        const char *value, *kept;
    } cases[] = {
        {"", ""},
        {"0123456789012345678901234567890123456789012345678901234567890123",
         "0123456789012345678901234567890123456789012345678901234567890123"},
        {"01234567890123456789012345678901234567890123456789012345678901234",
         "0123456789012345678901234567890123456789012345678901234567890123"},
        {"01234567890123456789012345678901234567890123456789012345678901\xe2\x82\xac",
         "01234567890123456789012345678901234567890123456789012345678901"},
        {"0123456789012345678901234567890123456789012345678901234567890\xe2\x82\xac",
         "0123456789012345678901234567890123456789012345678901234567890\xe2\x82\xac"},
    };

    (void)state;
    (void)become_worker();
    for (size_t i = 0; i < COUNT(cases); i++) {
        metrics_count(METRIC_WEBHOOK_EVENTS, cases[i].value, 0, 1);
        assert_true(row_of(METRIC_LABEL_EVENT_TYPE, cases[i].kept) >= 0);
    }
    assert_int_equal(total(METRIC_WEBHOOK_EVENTS, cases[1].kept, 0), 2);
    metrics_count(METRIC_WEBHOOK_EVENTS, NULL, 0, 1);
    assert_int_equal(total(METRIC_WEBHOOK_EVENTS, "", 0), 2);
}

/*
 * A worker in the race: in each step all claim a label of their own at the same moment. It gives the scoreboard back:
 * valgrind looks for leaks in all that a process has mapped when it ends, which takes a tenth of a second there.
 */
static _Noreturn void claim_and_die(int slot, atomic_int *arrivals)
{
    metrics_open(scoreboard, slot);
    for (int i = 0; i < LABELS; i++) {
        char text[32];

        snprintf(text, sizeof text, "value-%d", i * CHILDREN + slot);
        atomic_fetch_add(arrivals, 1);
        while (atomic_load(arrivals) < CHILDREN * (i + 1))
            sched_yield();
        metrics_count(METRIC_WEBHOOK_EVENTS, text, 0, 1);
        metrics_add(METRIC_EVENTS, 1);
    }
    metrics_open(NULL, 0);
    scoreboard_free(scoreboard);
    _exit(0);
}

static void test_processes_that_claim_labels_at_once_lose_and_double_nothing(void **state)
{
    atomic_int *arrivals = mmap(NULL, sizeof *arrivals, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char text[32];
    int status;

    assert_ptr_not_equal(arrivals, MAP_FAILED);
    for (int round = 0; round < ROUNDS; round++) {
        (void)tear_down(state);
        (void)set_up(state);
        atomic_store(arrivals, 0);
        for (unsigned i = 0; i < CHILDREN; i++) {
            int slot = scoreboard_take_slot(scoreboard, 1);
            pid_t pid = fork();

            assert_true(pid >= 0);
            if (pid == 0)
                claim_and_die(slot, arrivals);
        }
        for (int i = 0; i < CHILDREN; i++) {
            assert_true(wait(&status) > 0);
            assert_int_equal(status, 0);
        }
        for (int i = 0; i < CHILDREN * LABELS; i++) {
            snprintf(text, sizeof text, "value-%d", i);
            assert_int_equal(total(METRIC_WEBHOOK_EVENTS, text, 0), 1);
        }
        assert_int_equal(metrics_total(scoreboard, METRIC_WEBHOOK_EVENTS, 0), CHILDREN * LABELS);
        assert_int_equal(metrics_total(scoreboard, METRIC_EVENTS, 0), CHILDREN * LABELS);
    }
    munmap(arrivals, sizeof *arrivals);
}

static void test_a_run_is_counted_as_it_ended(void **state)
{
    (void)state;
    (void)become_worker();
    metrics_run_ended(&(struct metrics_run){.model = "opus",
                                            .status = RUN_STATUS_COMPLETED,
                                            .duration_us = 3 * SECOND,
                                            .agent_us = 2 * SECOND,
                                            .cost_usd = 0.25});
    metrics_run_ended(&(struct metrics_run){.status = RUN_STATUS_ERROR,
                                            .error_code = "e2b_auth",
                                            .duration_us = SECOND / 2,
                                            .agent_us = -1,
                                            .cost_usd = -1});
    assert_int_equal(total(METRIC_REQUESTS, "opus", METRIC_OUTCOME_OK), 1);
    assert_int_equal(total(METRIC_REQUESTS, "", METRIC_OUTCOME_ERROR), 1);
    assert_int_equal(total(METRIC_ERRORS, "e2b_auth", 0), 1);
    assert_int_equal(metrics_total(scoreboard, METRIC_ERRORS, 0), 1);
    assert_int_equal(total(METRIC_REQUEST_DURATION, "opus", METRICS_BUCKETS), 3 * SECOND);
    assert_int_equal(metrics_total(scoreboard, METRIC_AGENT_EXECUTION, METRICS_BUCKETS), 2 * SECOND);
    assert_int_equal(metrics_total(scoreboard, METRIC_COST, 0), 250000);
}

static void test_a_call_without_an_answer_is_counted_by_its_word(void **state)
{
    (void)state;
    (void)become_worker();
    metrics_sandbox_call(METRIC_OPERATION_DELETE, 204, "answered");
    metrics_sandbox_call(METRIC_OPERATION_DELETE, 0, "cut");
    assert_int_equal(total(METRIC_SANDBOX_CALLS, "204", METRIC_OPERATION_DELETE), 1);
    assert_int_equal(total(METRIC_SANDBOX_CALLS, "cut", METRIC_OPERATION_DELETE), 1);
    assert_int_equal(total(METRIC_SANDBOX_CALLS, "cut", METRIC_OPERATION_CREATE), 0);
}

/* Pages of the mapping that exist. */
static size_t resident_pages(void)
{
    size_t pages = scoreboard->bytes / 4096, resident = 0;
    unsigned char *map = malloc(pages);

    assert_non_null(map);
    assert_int_equal(mincore(scoreboard, scoreboard->bytes, map), 0);
    for (size_t i = 0; i < pages; i++)
        resident += map[i] & 1;
    free(map);
    return resident;
}

static void test_what_is_not_used_costs_no_page(void **state)
{
    size_t before;

    (void)state;
    for (int i = 0; i < SCOREBOARD_SLOTS_MAX; i++)
        assert_int_equal(scoreboard_take_slot(scoreboard, 1), i);
    before = resident_pages();
    metrics_open(scoreboard, 7);
    for (unsigned i = 0; i < 5; i++) {
        char text[16];

        snprintf(text, sizeof text, "%u", i);
        metrics_count(METRIC_REQUESTS, text, METRIC_OUTCOME_OK, 1);
        metrics_observe(METRIC_REQUEST_DURATION, text, 1);
        metrics_observe(METRIC_AGENT_EXECUTION, text, 1);
        metrics_observe(METRIC_SANDBOX_CREATION, text, 1);
        metrics_count(METRIC_SANDBOX_CALLS, text, METRIC_OPERATION_READ, 1);
    }
    assert_true(resident_pages() - before <= 2 + 3);   /* the cells, and the values of three labels */
    (void)metrics_total(scoreboard, METRIC_EVENTS, 0); /* looks at the head of each slot */
    before = resident_pages();
    (void)metrics_total(scoreboard, METRIC_REQUESTS, METRIC_OUTCOME_OK);
    assert_int_equal(resident_pages(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_totals_are_over_all_slots, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_slots_next_worker_goes_on_from_there, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_without_a_slot_nothing_is_counted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_duration_falls_into_the_first_bucket_that_holds_it, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_sixty_fifth_value_is_other, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_value_is_cut_between_characters, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_processes_that_claim_labels_at_once_lose_and_double_nothing, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_run_is_counted_as_it_ended, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_call_without_an_answer_is_counted_by_its_word, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_not_used_costs_no_page, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
