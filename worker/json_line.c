#include "worker/json_line.h"

#include "worker/utf8.h"

#include <string.h>

bool json_line_is(struct json_text value, const char *text)
{
    size_t length = strlen(text);
    json_t *string;
    bool same;

    if (value.start == NULL || json_text_type(value) != JSON_TEXT_STRING)
        return false;
    if (memchr(value.start, '\\', value.length) == NULL)
        return value.length == length + 2 && memcmp(value.start + 1, text, length) == 0;
    string = json_text_string(value);
    same =
        string != NULL && json_string_length(string) == length && memcmp(json_string_value(string), text, length) == 0;
    json_decref(string);
    return same;
}

bool json_line_members(const char *line, size_t length, const char *const names[], size_t count,
                       struct json_text values[])
{
    struct json_text root, key, value;
    struct json_text_cursor cursor;

    memset(values, 0, count * sizeof *values);
    if (!utf8_is_valid(line, length) || json_text_check_output(line, length, &root) != JSON_TEXT_OK ||
        json_text_type(root) != JSON_TEXT_OBJECT)
        return false;
    cursor = json_text_enter(root);
    while (json_text_next_member(&cursor, &key, &value)) {
        for (size_t i = 0; i < count; i++) {
            if (json_line_is(key, names[i]))
                values[i] = value;
        }
    }
    return true;
}
