/* Schedules: what is taken, and which instants they name. Thousands of instants more against a slow reference. */
#include "common/cron.h"
#include "tests/unit/unit.h"

#include <time.h>

static int64_t instant(const char *text)
{
    struct tm tm = {0};

    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)timegm(&tm);
}

static const struct {
    const char *schedule;
    const char *after;
    const char *next;
} instants[] = {
    {"* * * * *", "2026-11-27 05:08:10", "2026-11-27 05:09:00"},
    {"* * * * *", "2026-11-27 05:09:00", "2026-11-27 05:10:00"},
    {"* * * * * *", "2026-11-27 05:09:00", "2026-11-27 05:09:01"},
    {"* * * * * */20", "2026-11-27 23:59:45", "2026-11-28 00:00:00"},
    {"0 9 * * MON-FRI", "2026-11-27 09:00:00", "2026-11-30 09:00:00"},
    {"0 9 * * mon,WED,fri", "2026-11-27 08:59:59", "2026-11-27 09:00:00"},
    {"0 9 * * 1-5/2", "2026-11-27 09:00:00", "2026-11-30 09:00:00"},
    {"*/15 * * * *", "2026-11-27 05:08:10", "2026-11-27 05:15:00"},
    {"7/20 * * * *", "2026-11-27 05:48:00", "2026-11-27 06:07:00"},
    {"5-10,50 4,16 * * *", "2026-11-27 04:10:00", "2026-11-27 04:50:00"},
    {"5-10,50 4,16 * * *", "2026-11-27 04:50:00", "2026-11-27 16:05:00"},
    {"0 0 1 JAN *", "2026-11-27 00:00:00", "2027-01-01 00:00:00"},
    {"59 23 31 12 * 59", "2026-12-31 23:59:58", "2026-12-31 23:59:59"},
    {"59 23 31 12 * 59", "2026-12-31 23:59:59", "2027-12-31 23:59:59"},
    {"0 0 29 2 *", "2026-11-27 00:00:00", "2028-02-29 00:00:00"},
    {"0 0 29 2 *", "2096-02-29 00:00:00", "2104-02-29 00:00:00"},
    {"0 0 31 * *", "2026-01-31 00:00:00", "2026-03-31 00:00:00"},
    {"0 0 * * 0", "2026-11-27 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 * * 7", "2026-11-27 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 * * 5-7", "2026-11-28 00:00:00", "2026-11-29 00:00:00"},
    {"0 0 13 * FRI", "2026-11-13 00:00:00", "2026-11-20 00:00:00"}, /* either of the two */
    {"0 0 13 * FRI", "2026-12-11 00:00:00", "2026-12-13 00:00:00"},
    {"0 0 13 * *", "2026-11-13 00:00:00", "2026-12-13 00:00:00"},
    {"0 0 1-31 * FRI", "2026-11-28 00:00:00", "2026-12-04 00:00:00"}, /* every day is no restriction */
    {"0 0 ? * FRI", "2026-11-28 00:00:00", "2026-12-04 00:00:00"},
    {"30 2 29 3 *", "2026-03-29 00:00:00", "2026-03-29 02:30:00"}, /* which many a clock on a wall skips */
    {"30 2 25 10 *", "2026-10-25 02:30:00", "2027-10-25 02:30:00"},
    {"@hourly", "2026-11-27 05:08:10", "2026-11-27 06:00:00"},
    {"@daily", "2026-12-31 05:08:10", "2027-01-01 00:00:00"},
    {"@midnight", "2028-02-28 23:59:59", "2028-02-29 00:00:00"},
    {"@Weekly", "2026-11-27 05:08:10", "2026-11-29 00:00:00"},
    {"@monthly", "2026-11-27 05:08:10", "2026-12-01 00:00:00"},
    {"@yearly", "2026-11-27 05:08:10", "2027-01-01 00:00:00"},
    {"@annually", "2027-01-01 00:00:00", "2028-01-01 00:00:00"},
    {"  0\t0 * * *  ", "2026-11-27 05:08:10", "2026-11-28 00:00:00"},
};

static void test_instants(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(instants); i++) {
        const char *reason = "";
        struct cron cron;

        if (!cron_parse(instants[i].schedule, &cron, &reason))
            fail_msg("%s: %s", instants[i].schedule, reason);
        if (cron_next(&cron, instant(instants[i].after)) != instant(instants[i].next))
            fail_msg("%s after %s is not %s", instants[i].schedule, instants[i].after, instants[i].next);
    }
}

static const struct {
    const char *schedule;
    const char *reason;
} refused[] = {
    {"", "5 fields"},
    {"* * * *", "5 fields"},
    {"* * * * * * *", "5 fields"},
    {"@reboot", "5 fields"},
    {"@every 5m", "5 fields"},
    {"60 * * * *", "minute"},
    {"-1 * * * *", "minute"},
    {"1-2-3 * * * *", "minute"},
    {"*/0 * * * *", "minute"},
    {"*/60 * * * *", "minute"},
    {"1, * * * *", "minute"},
    {",1 * * * *", "minute"},
    {"1..5 * * * *", "minute"},
    {"5-1 * * * *", "minute"},
    {"99999999999999999999 * * * *", "minute"},
    {"* 24 * * *", "hour"},
    {"* JAN * * *", "hour"},
    {"* * 0 * *", "day of the month"},
    {"* * 32 * *", "day of the month"},
    {"* * L * *", "day of the month"},
    {"* * * 0 *", "the month is"},
    {"* * * 13 *", "the month is"},
    {"* * * JANUARY *", "the month is"},
    {"* * * * 8", "day of the week"},
    {"* * * * FRI-MON", "day of the week"},
    {"* * * * MON#2", "day of the week"},
    {"* * * * * 60", "second"},
    {"0 0 30 2 *", "never happens"},
    {"0 0 31 2,4,6,9,11 *", "never happens"},
};

static void test_what_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(refused); i++) {
        const char *reason = "";
        struct cron cron;

        if (cron_parse(refused[i].schedule, &cron, &reason) || strstr(reason, refused[i].reason) == NULL)
            fail_msg("%s: %s", refused[i].schedule, reason);
    }
}

/* --- against a reference that looks at each second ------------------------------------------------------- */

static bool names(const struct cron *cron, int64_t second)
{
    time_t at = (time_t)second;
    bool by_day, by_weekday;
    struct tm tm;

    if (!(cron->seconds >> second % 60 & 1)) /* most are this quick */
        return false;
    gmtime_r(&at, &tm);
    if (!(cron->minutes >> tm.tm_min & 1) || !(cron->hours >> tm.tm_hour & 1) || !(cron->months >> (tm.tm_mon + 1) & 1))
        return false;
    by_day = cron->days >> tm.tm_mday & 1;
    by_weekday = cron->weekdays >> tm.tm_wday & 1;
    if (cron->days == 0xfffffffe || cron->weekdays == 0x7f)
        return by_day && by_weekday;
    return by_day || by_weekday;
}

static void test_a_thousand_instants_as_a_slow_search_finds_them(void **state)
{
    static const char *const schedules[] = {
        "*/7 * * * *",    "0 */5 * * *",  "13 3,15 * * MON-FRI", "0 0 29 2 *", "30 23 28-31 * *",
        "*/10 0 1 * SUN", "0 12 31 12 *", "59 23 * FEB *",       "1 2 3 4 5",  "0 0 */9 */5 */3",
        "* * * * * */45", "5 5 5 5 * 5",  "0 0 13 * FRI",        "@weekly",    "17 1 * * *",
    };
    int found = 0;

    (void)state;
    for (size_t i = 0; i < COUNT(schedules); i++) {
        int64_t at = instant("2027-12-25 12:34:56"), end = at + INT64_C(70) * 86400;
        const char *reason;
        struct cron cron;

        assert_true(cron_parse(schedules[i], &cron, &reason));
        for (int64_t next; (next = cron_next(&cron, at)) <= end && found < 1000 * (int)(i + 1); at = next, found++) {
            for (int64_t second = at + 1; second < next; second++) {
                if (names(&cron, second))
                    fail_msg("%s: %lld was passed over", schedules[i], (long long)second);
            }
            assert_true(names(&cron, next));
        }
    }
    assert_true(found > 1000);
}

static void test_before_1970(void **state)
{
    const char *reason;
    struct cron cron;

    (void)state;
    assert_true(cron_parse("@hourly", &cron, &reason));
    assert_int_equal(cron_next(&cron, -3601), -3600);
    assert_int_equal(cron_next(&cron, -1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_instants),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_a_thousand_instants_as_a_slow_search_finds_them),
        cmocka_unit_test(test_before_1970),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
