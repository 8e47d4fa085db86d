#include "common/cron.h"

#include <ctype.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define DAY_S 86400
/* From one leap day to the next it is never longer than from 2096 to 2104. */
#define DAYS_AHEAD_MAX (9 * 366)
#define FIELDS_MAX     6
#define FIELD_BYTES    256
#define BITS_MAX       64
#define NUMBER_MAX     1000 /* of any number in a field: beyond every range */

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN",
                                          "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"};
static const char *const weekday_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"};

/* What a field may hold, and where its bits go. */
struct field_kind {
    size_t offset;
    int min;
    int max;
    const char *const *names; /* of min, min + 1, …; NULL: none */
    int name_count;
    const char *reason;
};

#define BITS(member) offsetof(struct cron, member)

static const struct field_kind kinds[FIELDS_MAX] = {
    {BITS(minutes), 0, 59, NULL, 0, "the minute is not within 0-59"},
    {BITS(hours), 0, 23, NULL, 0, "the hour is not within 0-23"},
    {BITS(days), 1, 31, NULL, 0, "the day of the month is not within 1-31"},
    {BITS(months), 1, 12, month_names, 12, "the month is not within 1-12 or JAN-DEC"},
    {BITS(weekdays), 0, 7, weekday_names, 7, "the day of the week is not within 0-7 or SUN-SAT"},
    {BITS(seconds), 0, 59, NULL, 0, "the second is not within 0-59"},
};

static const struct {
    const char *word;
    const char *meaning;
} shorthands[] = {
    {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"}, {"@weekly", "0 0 * * 0"},
    {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@hourly", "0 * * * *"},
};

/* --- reading ---------------------------------------------------------------------------------------------- */

static bool take_number(const char **at, int *number)
{
    if (!isdigit((unsigned char)**at))
        return false;
    for (*number = 0; isdigit((unsigned char)**at); ++*at)
        *number = *number < NUMBER_MAX ? *number * 10 + (**at - '0') : NUMBER_MAX;
    return true;
}

/* A number or a name. */
static bool take_value(const char **at, const struct field_kind *kind, int *value)
{
    for (int i = 0; i < kind->name_count; i++) {
        size_t length = strlen(kind->names[i]);

        if (strncasecmp(*at, kind->names[i], length) == 0) {
            *at += length;
            *value = kind->min + i;
            return true;
        }
    }
    return take_number(at, value) && *value >= kind->min && *value <= kind->max;
}

/* *, N, N-M, with /STEP. */
static bool take_range(const char **at, const struct field_kind *kind, uint64_t *bits)
{
    int first = kind->min, last = kind->max, step = 1;
    bool is_all = **at == '*' || **at == '?', is_single = false;

    if (is_all) {
        ++*at;
    } else {
        if (!take_value(at, kind, &first))
            return false;
        is_single = **at != '-';
        if (is_single)
            last = first;
        else if (++*at, !take_value(at, kind, &last))
            return false;
    }
    if (**at == '/') {
        ++*at;
        if (!take_number(at, &step) || step == 0 || step > kind->max)
            return false;
        if (is_single)
            last = kind->max;
    }
    if (first > last || last >= BITS_MAX)
        return false;
    for (int value = first; value <= last; value += step)
        *bits |= UINT64_C(1) << value;
    return true;
}

static bool read_field(const char *text, const struct field_kind *kind, uint64_t *bits)
{
    *bits = 0;
    for (;;) {
        if (!take_range(&text, kind, bits))
            return false;
        if (*text == '\0')
            return true;
        if (*text++ != ',')
            return false;
    }
}

/* Splits at blanks. Returns how many there are; more than FIELDS_MAX are only counted. */
static size_t split(const char *text, char fields[FIELDS_MAX][FIELD_BYTES])
{
    size_t count = 0;

    for (;;) {
        size_t length;

        text += strspn(text, " \t");
        length = strcspn(text, " \t");
        if (length == 0)
            return count;
        if (count < FIELDS_MAX)
            snprintf(fields[count], FIELD_BYTES, "%.*s", length < FIELD_BYTES ? (int)length : 0, text);
        count++;
        text += length;
    }
}

/* 7 is Sunday too. */
static void fold_sunday(struct cron *cron)
{
    if (cron->weekdays & 1u << 7)
        cron->weekdays = (cron->weekdays | 1) & 0x7f;
}

bool cron_parse(const char *text, struct cron *cron, const char **reason)
{
    char fields[FIELDS_MAX][FIELD_BYTES];
    size_t count;

    text += strspn(text, " \t");
    for (size_t i = 0; i < sizeof shorthands / sizeof *shorthands; i++) {
        if (strcasecmp(text, shorthands[i].word) == 0)
            text = shorthands[i].meaning;
    }
    count = split(text, fields);
    if (count != FIELDS_MAX && count != FIELDS_MAX - 1) {
        *reason = "it needs 5 fields (minute, hour, day of month, month, day of week), or 6 with the second last";
        return false;
    }
    *cron = (struct cron){.seconds = 1};
    for (size_t i = 0; i < count; i++) {
        if (!read_field(fields[i], &kinds[i], (uint64_t *)((char *)cron + kinds[i].offset))) {
            *reason = kinds[i].reason;
            return false;
        }
    }
    fold_sunday(cron);
    *reason = "it never happens";
    return cron_next(cron, 0) >= 0;
}

/* --- computing ------------------------------------------------------------------------------------------- */

static bool has(uint64_t bits, int value)
{
    return bits >> value & 1;
}

/* The lowest value from `from` on; -1: none. */
static int first_from(uint64_t bits, int from)
{
    bits = from < 64 ? bits >> from << from : 0;
    return bits != 0 ? __builtin_ctzll(bits) : -1;
}

static bool day_fits(const struct cron *cron, int64_t day)
{
    const uint64_t all_days = 0xfffffffe, all_weekdays = 0x7f;
    time_t start = (time_t)(day * DAY_S);
    bool by_day, by_weekday;
    struct tm tm;

    if (gmtime_r(&start, &tm) == NULL || !has(cron->months, tm.tm_mon + 1))
        return false;
    by_day = has(cron->days, tm.tm_mday);
    by_weekday = has(cron->weekdays, tm.tm_wday);
    if (cron->days == all_days || cron->weekdays == all_weekdays)
        return by_day && by_weekday;
    return by_day || by_weekday;
}

/* The first second of a day from `from` (0 to 86400) on; -1: none. */
static int first_second(const struct cron *cron, int from)
{
    for (int hour = first_from(cron->hours, from / 3600); hour >= 0; hour = first_from(cron->hours, hour + 1)) {
        int in_hour = hour == from / 3600 ? from % 3600 : 0;

        for (int minute = first_from(cron->minutes, in_hour / 60); minute >= 0;
             minute = first_from(cron->minutes, minute + 1)) {
            int second = first_from(cron->seconds, minute == in_hour / 60 ? in_hour % 60 : 0);

            if (second >= 0)
                return hour * 3600 + minute * 60 + second;
        }
    }
    return -1;
}

int64_t cron_next(const struct cron *cron, int64_t after_s)
{
    int64_t start_s = after_s + 1;
    int64_t first_day = start_s / DAY_S - (start_s % DAY_S < 0);
    int from = (int)(start_s - first_day * DAY_S);

    for (int64_t day = first_day; day <= first_day + DAYS_AHEAD_MAX; day++) {
        int second = day_fits(cron, day) ? first_second(cron, from) : -1;

        if (second >= 0)
            return day * DAY_S + second;
        from = 0;
    }
    return -1;
}
