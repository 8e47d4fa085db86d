/*
 * Whether a text is JSON (RFC 8259), and where it is not.
 */
#include "worker/json_text_internal.h"

#include <limits.h>

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
char json_text_meaning_of(char letter)
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

/* uXXXX, with the second half of a pair: the code point, a surrogate that is alone, or -1. */
int32_t json_text_read_unicode(const char *at, const char *end, size_t *length)
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
    int32_t code = json_text_read_unicode(scan->at, scan->end, &length);

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
        } else if (scan->at < scan->end && json_text_meaning_of(*scan->at) != '\0') {
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
