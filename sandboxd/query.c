#include "sandboxd/query.h"

#include <event2/http.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Form-decodes: + is a blank. Allocated. */
static char *form_decode(const char *text)
{
    return evhttp_uridecode(text, 1, NULL);
}

/* Adds one key=value; false when it is not exactly that. */
static bool add_pair(json_t *object, char *pair)
{
    char *equal = strchr(pair, '=');
    char *key, *value;
    bool added;

    if (equal == NULL || strchr(equal + 1, '=') != NULL)
        return false;
    *equal = '\0';
    key = form_decode(pair);
    value = form_decode(equal + 1);
    added = key != NULL && value != NULL && json_object_set_new(object, key, json_string(value)) == 0;
    free(key);
    free(value);
    return added;
}

json_t *query_metadata(const char *text)
{
    json_t *object = json_object();
    char *decoded = form_decode(text);
    char *rest = decoded;
    bool good = object != NULL && decoded != NULL;

    while (good && rest != NULL && *rest != '\0')
        good = add_pair(object, strsep(&rest, "&"));
    free(decoded);
    if (!good) {
        json_decref(object);
        return NULL;
    }
    return object;
}

bool query_metadata_matches(const json_t *metadata, const json_t *wanted)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)wanted, key, value)
    {
        const json_t *own = json_object_get(metadata, key);

        if (own == NULL || !json_equal(own, value))
            return false;
    }
    return true;
}

/* Reads a fraction of a second, from its dot, if it is there; moves past it. */
static long read_fraction(const char **text)
{
    long microseconds = 0;
    long digit_value = 100000;

    if (**text != '.')
        return 0;
    for (++*text; **text >= '0' && **text <= '9'; ++*text) {
        microseconds += (**text - '0') * digit_value;
        digit_value /= 10;
    }
    return microseconds;
}

/* Reads Z or an offset, in seconds, that fills the text; false when it is neither. */
static bool read_offset(const char *text, long *seconds)
{
    unsigned hours, minutes;
    int end = 0;

    *seconds = 0;
    if (strcmp(text, "Z") == 0 || strcmp(text, "z") == 0)
        return true;
    if ((*text != '+' && *text != '-') || sscanf(text + 1, "%2u:%2u%n", &hours, &minutes, &end) != 2 || end != 5 ||
        text[6] != '\0' || hours > 23 || minutes > 59)
        return false;
    *seconds = (long)(hours * 3600 + minutes * 60) * (*text == '-' ? -1 : 1);
    return true;
}

bool query_time(const char *text, long long *microseconds)
{
    struct tm date = {0};
    const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &date);
    long fraction, offset;

    if (rest == NULL)
        return false;
    fraction = read_fraction(&rest);
    if (!read_offset(rest, &offset))
        return false;
    *microseconds = ((long long)timegm(&date) - offset) * 1000000 + fraction;
    return true;
}
