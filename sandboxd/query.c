#include "sandboxd/query.h"

#include <event2/http.h>
#include <stdlib.h>
#include <string.h>

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
