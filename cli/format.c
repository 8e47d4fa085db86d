#include "cli/format.h"

#include <stdio.h>
#include <string.h>

#define SECONDS_PER_MINUTE 60
#define SECONDS_PER_HOUR   3600
#define SECONDS_PER_DAY    86400
#define KIB                1024.0
#define INSTANT_CHARACTERS 19 /* up to the second */

const char *format_duration(double seconds, char out[static FORMAT_BYTES])
{
    long whole = (long)seconds;

    if (seconds < SECONDS_PER_MINUTE)
        snprintf(out, FORMAT_BYTES, "%.1f s", seconds > 0 ? seconds : 0);
    else if (whole < SECONDS_PER_HOUR)
        snprintf(out, FORMAT_BYTES, "%ld min %02ld s", whole / SECONDS_PER_MINUTE, whole % SECONDS_PER_MINUTE);
    else if (whole < SECONDS_PER_DAY)
        snprintf(out, FORMAT_BYTES, "%ld h %02ld min", whole / SECONDS_PER_HOUR,
                 whole % SECONDS_PER_HOUR / SECONDS_PER_MINUTE);
    else
        snprintf(out, FORMAT_BYTES, "%ld d %02ld h", whole / SECONDS_PER_DAY,
                 whole % SECONDS_PER_DAY / SECONDS_PER_HOUR);
    return out;
}

const char *format_size(double bytes, char out[static FORMAT_BYTES])
{
    if (bytes < KIB)
        snprintf(out, FORMAT_BYTES, "%.0f B", bytes);
    else if (bytes < KIB * KIB)
        snprintf(out, FORMAT_BYTES, "%.1f KiB", bytes / KIB);
    else
        snprintf(out, FORMAT_BYTES, "%.1f MiB", bytes / KIB / KIB);
    return out;
}

const char *format_cost(const json_t *value, char out[static FORMAT_BYTES])
{
    if (json_is_number(value))
        snprintf(out, FORMAT_BYTES, "$%.4f", json_number_value(value));
    else
        snprintf(out, FORMAT_BYTES, "-");
    return out;
}

const char *format_count(const json_t *value, char out[static FORMAT_BYTES])
{
    if (json_is_number(value))
        snprintf(out, FORMAT_BYTES, "%.0f", json_number_value(value));
    else
        snprintf(out, FORMAT_BYTES, "-");
    return out;
}

const char *format_seconds(const json_t *value, char out[static FORMAT_BYTES])
{
    if (json_is_number(value))
        return format_duration(json_number_value(value), out);
    snprintf(out, FORMAT_BYTES, "-");
    return out;
}

const char *format_instant(const json_t *value, char out[static FORMAT_BYTES])
{
    const char *text = json_string_value(value);
    char *t;

    snprintf(out, FORMAT_BYTES, "%.*s", INSTANT_CHARACTERS, text != NULL ? text : "-");
    t = strchr(out, 'T');
    if (t != NULL)
        *t = ' ';
    return out;
}

const char *format_text(const json_t *value)
{
    return json_is_string(value) ? json_string_value(value) : "-";
}

const char *format_string(const json_t *value, char out[static FORMAT_BYTES])
{
    (void)out;
    return format_text(value);
}

const char *field_string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

double field_number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}
