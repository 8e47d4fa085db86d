#include "worker/json_member.h"

#include <ctype.h>

struct json_text json_member(struct json_text object, struct span name)
{
    struct json_text key_text, value, found = {.start = NULL};
    struct json_text_cursor cursor;

    if (json_text_type(object) != JSON_TEXT_OBJECT)
        return found;
    cursor = json_text_enter(object);
    while (json_text_next_member(&cursor, &key_text, &value)) {
        json_t *key = json_text_string(key_text);

        if (json_string_length(key) == name.length && memcmp(json_string_value(key), name.bytes, name.length) == 0)
            found = value; /* the last wins */
        json_decref(key);
    }
    return found;
}

struct json_text json_element(struct json_text array, struct span name)
{
    const struct json_text none = {.start = NULL};
    struct json_text_cursor cursor;
    struct json_text element;
    size_t wanted = 0;

    if (json_text_type(array) != JSON_TEXT_ARRAY)
        return none;
    for (size_t i = 0; i < name.length; i++) {
        if (!isdigit((unsigned char)name.bytes[i]) || i >= 9)
            return none;
        wanted = wanted * 10 + (size_t)(name.bytes[i] - '0');
    }
    cursor = json_text_enter(array);
    while (json_text_next_element(&cursor, &element)) {
        if (wanted-- == 0)
            return element;
    }
    return none;
}
