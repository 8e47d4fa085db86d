/* A schedule: refused with a reason, or the next instant is one that it names, and none before it is. */
#include "common/cron.h"
#include "tests/fuzz/fuzz.h"

#include <time.h>

/* How far is looked second by second. */
#define WINDOW_S 300

static bool has(uint64_t bits, int value)
{
    return (bits >> value & 1) != 0;
}

static bool is_named(const struct cron *cron, int64_t instant)
{
    static const uint64_t all_days = 0xfffffffe, all_weekdays = 0x7f;
    time_t seconds = (time_t)instant;
    struct tm tm;
    bool by_day, by_weekday;

    gmtime_r(&seconds, &tm);
    by_day = has(cron->days, tm.tm_mday);
    by_weekday = has(cron->weekdays, tm.tm_wday);
    if (!has(cron->seconds, tm.tm_sec) || !has(cron->minutes, tm.tm_min) || !has(cron->hours, tm.tm_hour) ||
        !has(cron->months, tm.tm_mon + 1))
        return false;
    if (cron->days == all_days || cron->weekdays == all_weekdays)
        return by_day && by_weekday;
    return by_day || by_weekday;
}

static void check_next(const struct cron *cron, int64_t after)
{
    int64_t next = cron_next(cron, after);

    if (next < 0)
        return;
    FUZZ_CHECK(next > after && is_named(cron, next));
    FUZZ_CHECK(cron_next(cron, next - 1) == next);
    for (int64_t instant = after + 1; instant < next && instant < after + WINDOW_S; instant++)
        FUZZ_CHECK(!is_named(cron, instant));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    const char *reason = NULL;
    struct cron cron;

    if (cron_parse(text, &cron, &reason)) {
        check_next(&cron, 1795755600);                           /* 2026-11-27 05:00:00 */
        check_next(&cron, (int64_t)(pieces.state % 4102444800)); /* up to 2100 */
        FUZZ_CHECK(cron_next(&cron, 1795755600) >= 0);
    } else {
        FUZZ_CHECK(reason != NULL && *reason != '\0');
    }
    free(text);
    return 0;
}
