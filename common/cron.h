/*
 * cron: the schedule of a trigger (http-api.md section 14): which instants it names, in UTC. Pure.
 *
 * Five fields (minute, hour, day of month, month, day of week), or six with the second last. A field is a list of
 * `*`, `?`, N, N-M, each with an optional /STEP; N/STEP goes to the end of the field. Months and days of the week have
 * names (JAN, MON), Sunday is 0 and 7. Where both the day of the month and the day of the week are restricted, either
 * will do, as with every cron. @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly stand for a whole.
 */
#ifndef COMMON_CRON_H
#define COMMON_CRON_H

#include <stdbool.h>
#include <stdint.h>

/* A bit for each value. */
struct cron {
    uint64_t seconds;
    uint64_t minutes;
    uint64_t hours;
    uint64_t days;     /* of the month, from 1 */
    uint64_t months;   /* from 1 */
    uint64_t weekdays; /* Sunday is 0 */
};

/* False with *reason, which is not to be freed; also for what never happens (30 February). */
bool cron_parse(const char *text, struct cron *cron, const char **reason) __attribute__((warn_unused_result));

/*
 * The first instant after `after_s`, in seconds since 1970, UTC. -1 when there is none in the next nine years.
 * Cost: a few microseconds; half a millisecond where only a leap day fits.
 */
int64_t cron_next(const struct cron *cron, int64_t after_s);

#endif
