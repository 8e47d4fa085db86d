#include "worker/json_text_internal.h"

#include "worker/memory_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT 0xfffd /* for what is no character */

/* --- walking ------------------------------------------------------------------------------------------- */

enum json_text_type json_text_type(struct json_text value)
{
    switch (*value.start) {
    case 'n':
        return JSON_TEXT_NULL;
    case 't':
    case 'f':
        return JSON_TEXT_BOOLEAN;
    case '"':
        return JSON_TEXT_STRING;
    case '[':
        return JSON_TEXT_ARRAY;
    case '{':
        return JSON_TEXT_OBJECT;
    default:
        return JSON_TEXT_NUMBER;
    }
}

bool json_text_is_true(struct json_text value)
{
    return *value.start == 't';
}

/* Behind a string that starts here: the text was checked, so that it ends. */
static const char *behind_string(const char *at, const char *end)
{
    at = behind_plain(at + 1, end);
    while (*at != '"')
        at = behind_plain(at + 2, end);
    return at + 1;
}

/* Behind a value that starts here: the text was checked, so that brackets match and strings end. */
static const char *behind_value(const char *at, const char *end)
{
    size_t depth = 0;

    if (*at != '{' && *at != '[' && *at != '"') {
        while (at < end && strchr(",]} \n\t\r", *at) == NULL)
            at++;
        return at;
    }
    do {
        if (*at == '"') {
            at = behind_string(at, end);
            continue;
        }
        if (*at == '{' || *at == '[')
            depth++;
        else if (*at == '}' || *at == ']')
            depth--;
        at++;
    } while (depth > 0);
    return at;
}

struct json_text_cursor json_text_enter(struct json_text container)
{
    return (struct json_text_cursor){.at = container.start + 1, .end = container.start + container.length};
}

/* Stands on the next item; false at the container's end. */
static bool next_item(struct json_text_cursor *cursor)
{
    cursor->at = skip_blanks(cursor->at, cursor->end);
    if (*cursor->at == ',')
        cursor->at = skip_blanks(cursor->at + 1, cursor->end);
    return *cursor->at != '}' && *cursor->at != ']';
}

static struct json_text take_value(struct json_text_cursor *cursor)
{
    struct json_text value = {.start = cursor->at};

    cursor->at = behind_value(cursor->at, cursor->end);
    value.length = (size_t)(cursor->at - value.start);
    return value;
}

bool json_text_next_element(struct json_text_cursor *cursor, struct json_text *value)
{
    if (!next_item(cursor))
        return false;
    *value = take_value(cursor);
    return true;
}

bool json_text_next_member(struct json_text_cursor *cursor, struct json_text *key, struct json_text *value)
{
    if (!next_item(cursor))
        return false;
    *key = take_value(cursor);
    cursor->at = skip_blanks(cursor->at, cursor->end);
    cursor->at = skip_blanks(cursor->at + 1, cursor->end); /* the colon */
    *value = take_value(cursor);
    return true;
}

json_t *json_text_members(struct json_text object, json_t *(*read)(json_t *key, struct json_text value, void *context),
                          void *context)
{
    json_t *members = json_object();
    struct json_text_cursor cursor = json_text_enter(object);
    struct json_text key_text, value_text;

    while (members != NULL && json_text_next_member(&cursor, &key_text, &value_text)) {
        json_t *key = json_text_string(key_text);
        json_t *value = key != NULL ? read(key, value_text, context) : NULL;

        if (key == NULL || (value != NULL && json_object_setn_new(members, json_string_value(key),
                                                                  json_string_length(key), value) < 0)) {
            json_decref(members);
            members = NULL;
        }
        json_decref(key);
    }
    return members;
}

json_t *json_text_verbatim(json_t *key, struct json_text value, void *context)
{
    (void)key;
    (void)context;
    return json_stringn_nocheck(value.start, value.length);
}

struct json_text json_text_of(const json_t *verbatim)
{
    return (struct json_text){.start = json_string_value(verbatim), .length = json_string_length(verbatim)};
}

/* --- strings ------------------------------------------------------------------------------------------- */

static size_t put_utf8(char *out, int32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code & 0x3f));
    return 4;
}

/* One escape, without its backslash; returns how many bytes of the text it took. */
static size_t decode_escape(const char *at, const char *end, char *out, size_t *used)
{
    size_t length;
    int32_t code;

    if (*at != 'u') {
        out[(*used)++] = json_text_meaning_of(*at);
        return 1;
    }
    code = json_text_read_unicode(at, end, &length);
    *used += put_utf8(out + *used, is_high_surrogate(code) || is_low_surrogate(code) ? REPLACEMENT : code);
    return length;
}

/* An escape is never shorter than what it stands for. */
static json_t *decode_string(const char *at, size_t length)
{
    const char *end = at + length;
    char *out = malloc(length);
    size_t used = 0;
    json_t *string;

    if (out == NULL) {
        memory_note_refusal();
        return NULL;
    }
    while (at < end) {
        const char *behind = behind_plain(at, end);

        memcpy(out + used, at, (size_t)(behind - at));
        used += (size_t)(behind - at);
        at = behind;
        if (at < end)
            at += 1 + decode_escape(at + 1, end, out, &used);
    }
    string = json_stringn_nocheck(out, used);
    free(out);
    return string;
}

json_t *json_text_string(struct json_text value)
{
    const char *inside = value.start + 1;
    size_t length = value.length - 2;

    if (memchr(inside, '\\', length) == NULL)
        return json_stringn_nocheck(inside, length);
    return decode_string(inside, length);
}

/* --- writing anew -------------------------------------------------------------------------------------- */

/* What cannot stand for itself, spelled out; returns its length. */
static size_t spell_escape(char c, char out[static 8])
{
    static const char names[] = "btnvfr"; /* from 8 on; \v has no name in JSON */

    out[0] = '\\';
    out[1] = c;
    if (c == '"' || c == '\\')
        return 2;
    if (c < '\b' || c > '\r' || c == '\v')
        return (size_t)snprintf(out, 8, "\\u%04x", (unsigned char)c);
    out[1] = names[c - '\b'];
    return 2;
}

/* Gathers short pieces, since each evbuffer_add() costs as much as a hundred bytes. */
struct gatherer {
    struct evbuffer *out;
    size_t used;
    bool failed;
    char bytes[1024];
};

static void flush(struct gatherer *gatherer)
{
    gatherer->failed |= evbuffer_add(gatherer->out, gatherer->bytes, gatherer->used) < 0;
    gatherer->used = 0;
}

static void gather(struct gatherer *gatherer, const char *bytes, size_t length)
{
    if (gatherer->used + length > sizeof gatherer->bytes)
        flush(gatherer);
    if (length > sizeof gatherer->bytes) {
        gatherer->failed |= evbuffer_add(gatherer->out, bytes, length) < 0;
        return;
    }
    memcpy(gatherer->bytes + gatherer->used, bytes, length);
    gatherer->used += length;
}

bool json_text_write_string(struct evbuffer *out, const char *text, size_t length)
{
    const char *end = text + length;
    struct gatherer gatherer;
    char escape[8];

    gatherer.out = out;
    gatherer.used = 0;
    gatherer.failed = false;
    gather(&gatherer, "\"", 1);
    while (text < end) {
        const char *behind = behind_plain(text, end);

        gather(&gatherer, text, (size_t)(behind - text));
        if (behind < end)
            gather(&gatherer, escape, spell_escape(*behind++, escape));
        text = behind;
    }
    gather(&gatherer, "\"", 1);
    flush(&gatherer);
    return !gatherer.failed;
}

bool json_text_write_value(struct evbuffer *out, const json_t *string)
{
    if (string == NULL)
        return evbuffer_add(out, "null", 4) == 0;
    return json_text_write_string(out, json_string_value(string), json_string_length(string));
}

bool json_text_write_strings(struct evbuffer *out, const json_t *list)
{
    size_t i;
    json_t *item;

    if (list == NULL)
        return json_text_write_value(out, NULL);
    if (evbuffer_add(out, "[", 1) < 0)
        return false;
    json_array_foreach(list, i, item)
    {
        if ((i > 0 && evbuffer_add(out, ",", 1) < 0) || !json_text_write_value(out, item))
            return false;
    }
    return evbuffer_add(out, "]", 1) == 0;
}

/* Stands on a string; true with *at behind it. */
static bool rewrite_string(const char **at, const char *end, struct evbuffer *out,
                           json_t *(*map)(json_t *string, void *context), void *context)
{
    const char *behind = behind_string(*at, end);
    json_t *string = json_text_string((struct json_text){.start = *at, .length = (size_t)(behind - *at)});
    const char *next = skip_blanks(behind, end);
    bool is_key = next < end && *next == ':';
    bool written;

    if (string != NULL && !is_key && map != NULL)
        string = map(string, context);
    written = string != NULL && json_text_write_string(out, json_string_value(string), json_string_length(string));
    json_decref(string);
    *at = behind;
    return written;
}

bool json_text_rewrite(struct json_text value, struct evbuffer *out, json_t *(*map)(json_t *string, void *context),
                       void *context)
{
    const char *at = value.start;
    const char *end = value.start + value.length;

    while ((at = skip_blanks(at, end)) < end) {
        const char *token = at;

        if (*at == '"') {
            if (!rewrite_string(&at, end, out, map, context))
                return false;
            continue;
        }
        while (at < end && *at != '"' && *at != ' ' && *at != '\n' && *at != '\t' && *at != '\r')
            at++;
        if (evbuffer_add(out, token, (size_t)(at - token)) < 0)
            return false;
    }
    return true;
}
