#include "common/duration_text.h"

#include <stdio.h>

#define SECONDS_PER_MINUTE 60
#define SECONDS_PER_HOUR   3600
#define SECONDS_PER_DAY    86400

const char *duration_text(double seconds, char out[static DURATION_TEXT_BYTES])
{
    long whole = (long)seconds;

    if (seconds < SECONDS_PER_MINUTE)
        snprintf(out, DURATION_TEXT_BYTES, "%.1f s", seconds > 0 ? seconds : 0);
    else if (whole < SECONDS_PER_HOUR)
        snprintf(out, DURATION_TEXT_BYTES, "%ld min %02ld s", whole / SECONDS_PER_MINUTE, whole % SECONDS_PER_MINUTE);
    else if (whole < SECONDS_PER_DAY)
        snprintf(out, DURATION_TEXT_BYTES, "%ld h %02ld min", whole / SECONDS_PER_HOUR,
                 whole % SECONDS_PER_HOUR / SECONDS_PER_MINUTE);
    else
        snprintf(out, DURATION_TEXT_BYTES, "%ld d %02ld h", whole / SECONDS_PER_DAY,
                 whole % SECONDS_PER_DAY / SECONDS_PER_HOUR);
    return out;
}
