#include "common/placeholder.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

static bool is_name_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static bool is_name_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool is_segment_byte(char c)
{
    return is_name_byte(c) || c == '-';
}

size_t placeholder_variable(const char *text, size_t length, struct placeholder_variable *variable)
{
    const char *end = text + length, *name = text + 2, *behind = name;

    if (length < 4 || text[0] != '$' || text[1] != '{' || !is_name_start(*name))
        return 0;
    while (behind < end && is_name_byte(*behind))
        behind++;
    *variable = (struct placeholder_variable){.name = name, .name_length = (size_t)(behind - name)};
    if (end - behind >= 2 && behind[0] == ':' && behind[1] == '-') {
        const char *fallback = behind + 2;

        behind = memchr(fallback, '}', (size_t)(end - fallback));
        if (behind == NULL)
            return 0;
        variable->fallback = fallback;
        variable->fallback_length = (size_t)(behind - fallback);
    }
    if (behind >= end || *behind != '}' || variable->name_length > VARIABLE_NAME_MAX_BYTES)
        return 0;
    return (size_t)(behind + 1 - text);
}

size_t placeholder_source(const char *text, size_t length, const char **path, size_t *path_length)
{
    size_t at = 2, start;

    if (length < 5 || text[0] != '{' || text[1] != '{')
        return 0;
    while (at < length && isspace((unsigned char)text[at]))
        at++;
    start = at;
    if (at == length || !is_name_start(text[at]))
        return 0;
    while (at < length && is_name_byte(text[at]))
        at++;
    while (at + 1 < length && text[at] == '.' && is_segment_byte(text[at + 1])) {
        at++;
        while (at < length && is_segment_byte(text[at]))
            at++;
    }
    *path = text + start;
    *path_length = at - start;
    while (at < length && isspace((unsigned char)text[at]))
        at++;
    return length - at >= 2 && text[at] == '}' && text[at + 1] == '}' ? at + 2 : 0;
}
