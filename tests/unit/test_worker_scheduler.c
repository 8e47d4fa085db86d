/*
 * Schedules over days of a clock that is set by hand: each instant fires at most once, in whichever worker, however the
 * clock jumps and whoever dies.
 */
#include "tests/unit/unit.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/run_table.h"
#include "tests/unit/timers.h"
#include "worker/scheduler.h"

#define MAX_FIRED 4096
#define START_S   INT64_C(1803859200) /* 2027-03-01 00:00:00 UTC */

/* --- the clock --------------------------------------------------------------------------------------------- */

static int64_t now_s;

int64_t realtime_us(void)
{
    return now_s * 1000000;
}

int64_t monotonic_ms(void)
{
    return now_s * 1000;
}

/* --- the world --------------------------------------------------------------------------------------------- */

static struct event_base *base;
static struct scoreboard *scoreboard;
static struct trigger_set *set;
static struct fired {
    int64_t at_s;
    const struct trigger *trigger;
} fired[MAX_FIRED];
static size_t fired_count;
static enum schedule_outcome outcome;
static uint64_t next_run_id; /* 0: runs that are over at once */

static enum schedule_outcome on_fire(void *context, const struct trigger *trigger, uint64_t *run_id)
{
    (void)context;
    assert_true(fired_count < MAX_FIRED);
    fired[fired_count++] = (struct fired){.at_s = now_s, .trigger = trigger};
    *run_id = next_run_id;
    return outcome;
}

static void on_fault(void *context, bool is_warning, const char *field, const char *reason)
{
    (void)context;
    (void)is_warning;
    fail_msg("%s %s", field, reason);
}

static void use(const char *triggers)
{
    const struct project_faults faults = {.on_fault = on_fault};
    struct json_text_fault fault;
    struct json_text root;

    assert_int_equal(json_text_check(triggers, strlen(triggers), &root, &fault), JSON_TEXT_OK);
    trigger_set_free(set);
    set = trigger_set_parse(root, NULL, &faults);
    assert_non_null(set);
}

static struct scheduler *new_scheduler(void)
{
    struct scheduler *scheduler = scheduler_new(base, scoreboard, set, &(struct scheduler_handlers){.fire = on_fire});

    assert_non_null(scheduler);
    return scheduler;
}

/* The timer of the only scheduler that runs. */
static void look(void)
{
    struct waiting_timers timers = waiting_timers(base);

    assert_non_null(timers.shortest);
    fire_timer(timers.shortest);
}

/* Second by second. */
static void pass(int64_t seconds)
{
    for (int64_t end_s = now_s + seconds; now_s < end_s;) {
        now_s++;
        look();
    }
}

static uint64_t skipped(enum metric_skip why)
{
    return metrics_total(scoreboard, METRIC_TRIGGER_SKIPPED, why);
}

static int set_up(void **state)
{
    const struct scoreboard_sizes sizes = {.max_runs = 4, .run_history = 4};

    (void)state;
    now_s = START_S;
    fired_count = 0;
    next_run_id = 0;
    outcome = SCHEDULE_FIRED;
    base = event_base_new();
    scoreboard = scoreboard_new(&sizes, NULL);
    metrics_open(scoreboard, scoreboard_take_slot(scoreboard, 1));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    trigger_set_free(set);
    set = NULL;
    metrics_open(NULL, 0);
    scoreboard_free(scoreboard);
    event_base_free(base);
    return 0;
}

#define CRON(name, schedule) "{\"name\":\"" name "\",\"type\":\"cron\",\"prompt\":\"p\",\"schedule\":\"" schedule "\"}"

/* --- time goes on ------------------------------------------------------------------------------------------ */

static void test_each_instant_fires_once_at_its_second(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("five", "*/5 * * * *") "," CRON("night", "0 2 * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    scheduler_start(scheduler);
    pass(3 * 3600);
    assert_int_equal(fired_count, 36 + 1);
    for (size_t i = 0; i < fired_count; i++)
        assert_int_equal(fired[i].at_s % 300, 0);
    assert_int_equal(fired[0].at_s, START_S + 300); /* not at the start itself: nothing is replayed */
    scheduler_free(scheduler);
}

static void test_a_set_without_schedules_waits_for_nothing(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    assert_null(waiting_timers(base).shortest);
    scheduler_free(scheduler);
}

static void test_after_a_stop_nothing_fires(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("tick", "* * * * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    pass(3);
    scheduler_stop(scheduler);
    assert_null(waiting_timers(base).shortest);
    assert_int_equal(fired_count, 3);
    scheduler_free(scheduler);
}

/* --- other workers ----------------------------------------------------------------------------------------- */

static void test_a_successor_goes_on_where_the_dead_one_was(void **state)
{
    struct scheduler *dead, *successor;

    (void)state;
    use("[" CRON("minute", "* * * * *") "]");
    dead = new_scheduler();
    scheduler_start(dead);
    pass(150); /* two fired */
    scheduler_stop(dead);
    now_s += 45; /* the third is missed */
    successor = new_scheduler();
    scheduler_start(successor);
    look();
    assert_int_equal(fired_count, 3);
    assert_int_equal(fired[2].at_s, START_S + 195); /* 15 s late */
    pass(45);
    assert_int_equal(fired_count, 4);
    scheduler_free(dead);
    scheduler_free(successor);
}

/* Two that both believe to be the elected one. */
static void test_two_at_once_fire_each_instant_once(void **state)
{
    struct scheduler *one, *two;

    (void)state;
    use("[" CRON("tick", "* * * * * *") "]");
    one = new_scheduler();
    two = new_scheduler();
    scheduler_start(one);
    scheduler_start(two);
    for (int i = 0; i < 100; i++) {
        now_s++;
        look();
        look(); /* the other's: the first one waits anew */
    }
    assert_int_equal(fired_count, 100);
    scheduler_free(one);
    scheduler_free(two);
}

static void test_another_schedule_begins_anew_and_old_places_are_given_back(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    for (int generation = 0; generation < 100; generation++) {
        char text[256];

        snprintf(
            text, sizeof text,
            "[" CRON("same",
                     "* * * * *") ",{\"name\":\"c\",\"type\":\"cron\",\"prompt\":\"p\",\"schedule\":\"%d %d * * *\"}]",
            generation % 60, generation % 24);
        use(text);
        scheduler = new_scheduler();
        scheduler_start(scheduler);
        scheduler_free(scheduler);
        now_s++;
    }
    /* `same` kept its place all the while: its first instant has passed, late by less than a minute. */
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    look();
    assert_int_equal(fired_count, 1);
    assert_string_equal(fired[0].trigger->name, "same");
    scheduler_free(scheduler);
}

/* --- a clock that jumps ------------------------------------------------------------------------------------ */

static void test_what_is_older_than_a_minute_is_skipped(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("minute", "* * * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    now_s += 3600 + 30; /* the machine slept */
    look();
    assert_int_equal(fired_count, 1); /* of a minute ago at most */
    assert_int_equal(skipped(METRIC_SKIPPED_LATE), 59);
    pass(30);
    assert_int_equal(fired_count, 2);
    scheduler_free(scheduler);
}

static void test_years_are_skipped_at_once(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("tick", "* * * * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    now_s += INT64_C(20) * 365 * 86400;
    look();
    assert_in_range(skipped(METRIC_SKIPPED_LATE), 1, 1000);
    assert_in_range(fired_count, 60, 61);
    scheduler_free(scheduler);
}

static void test_a_clock_that_goes_back_repeats_nothing(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("minute", "* * * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    pass(120);
    assert_int_equal(fired_count, 2);
    now_s -= 90;
    pass(149);
    assert_int_equal(fired_count, 2);
    pass(1);
    assert_int_equal(fired_count, 3);
    assert_int_equal(fired[2].at_s, START_S + 180);
    scheduler_free(scheduler);
}

/* --- runs -------------------------------------------------------------------------------------------------- */

static void test_a_run_that_goes_on_guards_its_trigger_only(void **state)
{
    struct run_entry entry;
    struct scheduler *scheduler;
    uint64_t owner = atomic_load(&scoreboard->slots[0].serial);

    (void)state;
    assert_true(run_entry_take(&entry, scoreboard, owner, 7));
    run_entry_publish(&entry);
    next_run_id = 7;
    use("[" CRON("slow", "* * * * *") "]");
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    pass(60);
    assert_int_equal(fired_count, 1);
    pass(120);
    assert_int_equal(fired_count, 1);
    assert_int_equal(skipped(METRIC_SKIPPED_OVERLAP), 2);
    (void)!run_entry_begin_end(&entry);
    entry.record.status = RUN_STATUS_COMPLETED;
    run_entry_end(&entry);
    pass(60);
    assert_int_equal(fired_count, 2);
    scheduler_free(scheduler);
}

static void test_a_full_server_skips_the_instant(void **state)
{
    struct scheduler *scheduler;

    (void)state;
    use("[" CRON("tick", "* * * * * *") "]");
    outcome = SCHEDULE_FULL;
    scheduler = new_scheduler();
    scheduler_start(scheduler);
    pass(4);
    assert_int_equal(fired_count, 4); /* tried, each once */
    assert_int_equal(skipped(METRIC_SKIPPED_FULL), 4);
    scheduler_free(scheduler);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_each_instant_fires_once_at_its_second),
        TEST(test_a_set_without_schedules_waits_for_nothing),
        TEST(test_after_a_stop_nothing_fires),
        TEST(test_a_successor_goes_on_where_the_dead_one_was),
        TEST(test_two_at_once_fire_each_instant_once),
        TEST(test_another_schedule_begins_anew_and_old_places_are_given_back),
        TEST(test_what_is_older_than_a_minute_is_skipped),
        TEST(test_years_are_skipped_at_once),
        TEST(test_a_clock_that_goes_back_repeats_nothing),
        TEST(test_a_run_that_goes_on_guards_its_trigger_only),
        TEST(test_a_full_server_skips_the_instant),
    };

    log_set_level(LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
