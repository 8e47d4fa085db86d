#include "worker/timestamp.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define US_PER_S 1000000

const char *timestamp_format(int64_t us, char out[static TIMESTAMP_BYTES])
{
    time_t seconds = us / US_PER_S - (us % US_PER_S < 0);
    struct tm utc;
    char date[TIMESTAMP_BYTES / 2] = "";

    if (gmtime_r(&seconds, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out, TIMESTAMP_BYTES, "%s.%06d+00:00", date, (int)(us - (int64_t)seconds * US_PER_S));
    return out;
}

/* Digits behind a point; those beyond microseconds do not count. */
static const char *read_fraction(const char *at, int *us)
{
    *us = 0;
    if (*at != '.')
        return at;
    at++;
    for (int unit = US_PER_S / 10; isdigit((unsigned char)*at); unit /= 10)
        *us += (*at++ - '0') * unit;
    return at;
}

/* "+hh:mm", "Z" or nothing, and then the end. */
static bool read_offset(const char *at, int *seconds)
{
    int hours, minutes, used = 0;

    *seconds = 0;
    if (strcmp(at, "") == 0 || strcmp(at, "Z") == 0)
        return true;
    if ((*at != '+' && *at != '-') || sscanf(at + 1, "%2d:%2d%n", &hours, &minutes, &used) != 2 || at[1 + used] != '\0')
        return false;
    *seconds = (hours * 3600 + minutes * 60) * (*at == '-' ? -1 : 1);
    return true;
}

bool timestamp_parse(const char *text, size_t length, int64_t *us)
{
    char copy[TIMESTAMP_BYTES];
    struct tm utc = {.tm_isdst = 0};
    const char *rest;
    int fraction, offset;

    if (length >= sizeof copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    rest = strptime(copy, "%Y-%m-%dT%H:%M:%S", &utc);
    if (rest == NULL || !read_offset(read_fraction(rest, &fraction), &offset))
        return false;
    *us = ((int64_t)timegm(&utc) - offset) * US_PER_S + fraction;
    return true;
}
