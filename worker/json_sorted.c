#include "worker/json_sorted.h"

#include <stdlib.h>
#include <string.h>

/* One member of an object whose value was written apart. */
struct member {
    json_t *key;
    size_t order; /* of its appearance */
    struct evbuffer *value;
};

struct members {
    struct member *list;
    size_t count;
    size_t capacity;
};

static const char *write_value(const char *at, struct evbuffer *out);

/* --- walking: the text was checked, so that what stands where is known ---------------------------------- */

static const char *skip_blanks(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

/* The place behind the string at this place. */
static const char *string_end(const char *at)
{
    for (at++; *at != '"'; at++)
        at += *at == '\\';
    return at + 1;
}

/* --- objects ---------------------------------------------------------------------------------------------- */

static int in_order(const void *left, const void *right)
{
    const struct member *one = left, *other = right;
    size_t length = json_string_length(one->key), other_length = json_string_length(other->key);
    int order = memcmp(json_string_value(one->key), json_string_value(other->key),
                       length < other_length ? length : other_length);

    if (order != 0)
        return order;
    if (length != other_length)
        return length < other_length ? -1 : 1;
    return one->order < other->order ? -1 : 1;
}

static void members_free(struct members *members)
{
    for (size_t i = 0; i < members->count; i++) {
        json_decref(members->list[i].key);
        evbuffer_free(members->list[i].value);
    }
    free(members->list);
}

static struct member *add_member(struct members *members)
{
    struct member *grown = members->list;
    struct evbuffer *value;

    if (members->count == members->capacity) {
        members->capacity = members->capacity * 2 + 8;
        grown = realloc(members->list, members->capacity * sizeof *grown);
    }
    if (grown == NULL)
        return NULL;
    members->list = grown;
    value = evbuffer_new();
    if (value == NULL)
        return NULL;
    grown[members->count] = (struct member){.order = members->count, .value = value};
    return &grown[members->count++];
}

/* `"key": value`, which moves. */
static bool write_member(const struct member *member, struct evbuffer *out)
{
    return json_text_write_string(out, json_string_value(member->key), json_string_length(member->key)) &&
           evbuffer_add(out, ": ", 2) == 0 && evbuffer_add_buffer(out, member->value) == 0;
}

static bool write_members(const struct members *members, struct evbuffer *out)
{
    const char *separator = "{";

    if (members->count > 0)
        qsort(members->list, members->count, sizeof *members->list, in_order);
    for (size_t i = 0; i < members->count; i++) {
        if (i + 1 < members->count && json_equal(members->list[i].key, members->list[i + 1].key))
            continue;
        if (evbuffer_add(out, separator, strlen(separator)) < 0 || !write_member(&members->list[i], out))
            return false;
        separator = ", ";
    }
    return evbuffer_add(out, members->count > 0 ? "}" : "{}", members->count > 0 ? 1 : 2) == 0;
}

/* The place behind the member; NULL for lack of memory. */
static const char *read_member(const char *at, struct members *members)
{
    struct member *member = add_member(members);
    const char *end = string_end(at);

    if (member == NULL)
        return NULL;
    member->key = json_text_string((struct json_text){at, (size_t)(end - at)});
    if (member->key == NULL)
        return NULL;
    at = skip_blanks(end) + 1; /* the colon */
    return write_value(skip_blanks(at), member->value);
}

static const char *write_object(const char *at, struct evbuffer *out)
{
    struct members members = {.list = NULL};

    at = skip_blanks(at + 1);
    while (at != NULL && *at != '}') {
        at = read_member(at, &members);
        if (at != NULL)
            at = skip_blanks(at);
        if (at != NULL && *at == ',')
            at = skip_blanks(at + 1);
    }
    if (at != NULL && !write_members(&members, out))
        at = NULL;
    members_free(&members);
    return at != NULL ? at + 1 : NULL;
}

/* --- the rest --------------------------------------------------------------------------------------------- */

static const char *write_array(const char *at, struct evbuffer *out)
{
    const char *separator = "[";

    at = skip_blanks(at + 1);
    while (at != NULL && *at != ']') {
        evbuffer_add(out, separator, strlen(separator));
        separator = ", ";
        at = write_value(at, out);
        if (at != NULL)
            at = skip_blanks(at);
        if (at != NULL && *at == ',')
            at = skip_blanks(at + 1);
    }
    if (at == NULL || evbuffer_add(out, *separator == '[' ? "[]" : "]", *separator == '[' ? 2 : 1) < 0)
        return NULL;
    return at + 1;
}

static const char *write_string(const char *at, struct evbuffer *out)
{
    const char *end = string_end(at);
    json_t *string = json_text_string((struct json_text){at, (size_t)(end - at)});
    bool good = string != NULL && json_text_write_value(out, string);

    json_decref(string);
    return good ? end : NULL;
}

static const char *write_word(const char *at, struct evbuffer *out)
{
    size_t length = strspn(at, "+-.0123456789abcdefghijklmnopqrstuvwxyzE");

    return evbuffer_add(out, at, length) == 0 ? at + length : NULL;
}

/* The place behind the value; NULL for lack of memory. */
static const char *write_value(const char *at, struct evbuffer *out)
{
    switch (*at) {
    case '{':
        return write_object(at, out);
    case '[':
        return write_array(at, out);
    case '"':
        return write_string(at, out);
    default:
        return write_word(at, out);
    }
}

bool json_sorted_write(struct json_text value, struct evbuffer *out)
{
    enum json_text_type type = json_text_type(value);

    /* A word may end with the buffer; everything else ends with a byte of its own. */
    if (type != JSON_TEXT_OBJECT && type != JSON_TEXT_ARRAY && type != JSON_TEXT_STRING)
        return evbuffer_add(out, value.start, value.length) == 0;
    return write_value(value.start, out) != NULL;
}
