#include "cli/format.h"

#include <stdio.h>
#include <string.h>

#define KIB                1024.0
#define INSTANT_CHARACTERS 19 /* up to the second */

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
        return duration_text(json_number_value(value), out);
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
