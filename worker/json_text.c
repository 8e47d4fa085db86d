#include "worker/json_text.h"

#include "worker/memory_watch.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLACEMENT 0xfffd /* for what is no character */

/* --- checking ------------------------------------------------------------------------------------------ */

struct scan {
    const char *begin;
    const char *at;
    const char *end;
    const char *reason;   /* of the fault that stands at `at` */
    bool lone_surrogates; /* they pass */
    unsigned depth;
    unsigned depth_max;
    unsigned char in_object[JSON_TEXT_OUTPUT_DEPTH_MAX / CHAR_BIT]; /* a bit per level */
};

static bool is_in_object(const struct scan *scan)
{
    unsigned level = scan->depth - 1;

    return scan->in_object[level / CHAR_BIT] >> level % CHAR_BIT & 1;
}

static void enter_level(struct scan *scan, bool in_object)
{
    unsigned char bit = (unsigned char)(1u << scan->depth % CHAR_BIT);
    unsigned char *byte = &scan->in_object[scan->depth++ / CHAR_BIT];

    *byte = (unsigned char)(in_object ? *byte | bit : *byte & ~bit);
}

static bool fail(struct scan *scan, const char *reason)
{
    scan->reason = reason;
    return false;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/*
 * Behind the bytes that stand for themselves in a string: to the first quote, backslash or control character. Eight at
 * a time: nearly all of a prompt is plain.
 */
static const char *behind_plain(const char *at, const char *end)
{
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;

    while (end - at >= 8) {
        uint64_t word, quotes, backslashes;

        memcpy(&word, at, sizeof word);
        quotes = word ^ (ones * '"');
        backslashes = word ^ (ones * '\\');
        /* A top bit for each byte below 0x20, and for each that became zero. */
        if ((((word - ones * 0x20) & ~word) | ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes)) &
            tops)
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && *at != '"' && *at != '\\')
        at++;
    return at;
}

static bool is_digit(const char *at, const char *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* What a letter after a backslash stands for; NUL for none. */
static char meaning_of(char letter)
{
    switch (letter) {
    case '"':
    case '\\':
    case '/':
        return letter;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    default:
        return '\0';
    }
}

/* The four digits of \uXXXX, at which `at` points; -1 when they are not four. */
static int32_t hex4(const char *at, const char *end)
{
    int32_t code = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        int digit = hex_value(at[i]);

        if (digit < 0)
            return -1;
        code = code << 4 | digit;
    }
    return code;
}

static bool is_high_surrogate(int32_t code)
{
    return code >= 0xd800 && code <= 0xdbff;
}

static bool is_low_surrogate(int32_t code)
{
    return code >= 0xdc00 && code <= 0xdfff;
}

/* uXXXX, with the second half of a pair: the code point, a surrogate that is alone, or -1. */
static int32_t read_unicode(const char *at, const char *end, size_t *length)
{
    int32_t code = hex4(at + 1, end);
    int32_t low = -1;

    *length = 5;
    if (is_high_surrogate(code) && end - at >= 11 && at[5] == '\\' && at[6] == 'u')
        low = hex4(at + 7, end);
    if (!is_low_surrogate(low))
        return code;
    *length = 11;
    return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

/* `at` stands on the u. */
static bool scan_unicode_escape(struct scan *scan)
{
    size_t length;
    int32_t code = read_unicode(scan->at, scan->end, &length);

    if (code < 0)
        return fail(scan, "invalid \\u escape");
    if ((is_high_surrogate(code) || is_low_surrogate(code)) && !scan->lone_surrogates)
        return fail(scan, "lone surrogate");
    scan->at += length;
    return true;
}

/* From the opening quote to behind the closing one. */
static bool scan_string(struct scan *scan)
{
    scan->at++;
    while ((scan->at = behind_plain(scan->at, scan->end)) < scan->end) {
        char c = *scan->at;

        if (c == '"') {
            scan->at++;
            return true;
        }
        if ((unsigned char)c < 0x20)
            return fail(scan, "control character in a string");
        scan->at++;
        if (c != '\\')
            continue;
        if (scan->at < scan->end && *scan->at == 'u') {
            if (!scan_unicode_escape(scan))
                return false;
        } else if (scan->at < scan->end && meaning_of(*scan->at) != '\0') {
            scan->at++;
        } else {
            return fail(scan, "invalid escape");
        }
    }
    return fail(scan, "unterminated string");
}

static bool scan_digits(struct scan *scan)
{
    if (!is_digit(scan->at, scan->end))
        return fail(scan, "invalid number");
    while (is_digit(scan->at, scan->end))
        scan->at++;
    return true;
}

static bool scan_number(struct scan *scan)
{
    if (*scan->at == '-')
        scan->at++;
    if (scan->at < scan->end && *scan->at == '0')
        scan->at++;
    else if (!scan_digits(scan))
        return false;
    if (scan->at < scan->end && *scan->at == '.') {
        scan->at++;
        if (!scan_digits(scan))
            return false;
    }
    if (scan->at < scan->end && (*scan->at == 'e' || *scan->at == 'E')) {
        scan->at++;
        if (scan->at < scan->end && (*scan->at == '+' || *scan->at == '-'))
            scan->at++;
        return scan_digits(scan);
    }
    return true;
}

static bool scan_word(struct scan *scan)
{
    static const char *const words[] = {"true", "false", "null"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);

        if ((size_t)(scan->end - scan->at) >= length && memcmp(scan->at, words[i], length) == 0) {
            scan->at += length;
            return true;
        }
    }
    return fail(scan, "expected a value");
}

/* "key" : and stands before the value. */
static bool scan_key(struct scan *scan)
{
    if (scan->at >= scan->end || *scan->at != '"')
        return fail(scan, "expected a key in double quotes");
    if (!scan_string(scan))
        return false;
    scan->at = skip_blanks(scan->at, scan->end);
    if (scan->at >= scan->end || *scan->at != ':')
        return fail(scan, "expected ':'");
    scan->at = skip_blanks(scan->at + 1, scan->end);
    return true;
}

/* A value that is no container, whole. */
static bool scan_scalar(struct scan *scan)
{
    if (scan->at >= scan->end)
        return fail(scan, "expected a value");
    if (*scan->at == '"')
        return scan_string(scan);
    if (*scan->at == '-' || is_digit(scan->at, scan->end))
        return scan_number(scan);
    return scan_word(scan);
}

/* Behind a value: closes what ends here, and stands before the next value, or behind the last one. */
static bool scan_behind_value(struct scan *scan)
{
    while (scan->depth > 0) {
        bool in_object = is_in_object(scan);

        scan->at = skip_blanks(scan->at, scan->end);
        if (scan->at < scan->end && *scan->at == ',') {
            scan->at = skip_blanks(scan->at + 1, scan->end);
            return !in_object || scan_key(scan);
        }
        if (scan->at >= scan->end || *scan->at != (in_object ? '}' : ']'))
            return fail(scan, in_object ? "expected ',' or '}'" : "expected ',' or ']'");
        scan->at++;
        scan->depth--;
    }
    return true;
}

/* Stands on a bracket that opens. Enters it and stands before its first value, or behind it when it is empty. */
static bool scan_open(struct scan *scan, bool *is_empty)
{
    bool is_object = *scan->at == '{';

    scan->at = skip_blanks(scan->at + 1, scan->end);
    *is_empty = scan->at < scan->end && *scan->at == (is_object ? '}' : ']');
    if (*is_empty) {
        scan->at++;
        return true;
    }
    enter_level(scan, is_object);
    return !is_object || scan_key(scan);
}

/* One value with all that is in it. */
static enum json_text_result scan_value(struct scan *scan)
{
    do {
        if (scan->at < scan->end && (*scan->at == '{' || *scan->at == '[')) {
            bool is_empty;

            if (scan->depth == scan->depth_max)
                return JSON_TEXT_TOO_DEEP;
            if (!scan_open(scan, &is_empty))
                return JSON_TEXT_INVALID;
            if (!is_empty)
                continue;
        } else if (!scan_scalar(scan)) {
            return JSON_TEXT_INVALID;
        }
        if (!scan_behind_value(scan))
            return JSON_TEXT_INVALID;
        if (scan->depth == 0)
            return JSON_TEXT_OK;
    } while (true);
}

static enum json_text_result check(const char *text, size_t length, bool is_output, struct json_text *root,
                                   struct json_text_fault *fault)
{
    struct scan scan = {.begin = text,
                        .at = skip_blanks(text, text + length),
                        .end = text + length,
                        .lone_surrogates = is_output,
                        .depth_max = is_output ? JSON_TEXT_OUTPUT_DEPTH_MAX : JSON_TEXT_DEPTH_MAX};
    const char *start = scan.at;
    enum json_text_result result = scan_value(&scan);

    *root = (struct json_text){0};
    if (result == JSON_TEXT_OK) {
        *root = (struct json_text){.start = start, .length = (size_t)(scan.at - start)};
        scan.at = skip_blanks(scan.at, scan.end);
        if (scan.at < scan.end) {
            scan.reason = "text after the value";
            result = JSON_TEXT_INVALID;
        }
    }
    if (result == JSON_TEXT_INVALID)
        *fault = (struct json_text_fault){.offset = (size_t)(scan.at - scan.begin), .reason = scan.reason};
    return result;
}

enum json_text_result json_text_check(const char *text, size_t length, struct json_text *root,
                                      struct json_text_fault *fault)
{
    return check(text, length, false, root, fault);
}

enum json_text_result json_text_check_output(const char *text, size_t length, struct json_text *root)
{
    struct json_text_fault fault;

    return check(text, length, true, root, &fault);
}

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
        out[(*used)++] = meaning_of(*at);
        return 1;
    }
    code = read_unicode(at, end, &length);
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
