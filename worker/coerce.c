#include "worker/coerce.h"

#include "worker/memory_watch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Exponents beyond this say no more than this: no text we take has so many digits. */
#define EXPONENT_MAX 1000000000000LL

/* A decimal number taken apart: [-]digits[.digits][e[+-]digits]. The digits point into the text. */
struct decimal {
    bool negative;
    const char *whole;
    size_t whole_length;
    const char *fraction;
    size_t fraction_length;
    int64_t exponent;
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* UTF-8 of what Unicode calls white space, but for U+2000 to U+200A. */
static const char *const wide_blanks[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80", "\xe2\x80\xa8",
                                          "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};

static bool is_general_space(const char *text)
{
    return memcmp(text, "\xe2\x80", 2) == 0 && (unsigned char)text[2] >= 0x80 && (unsigned char)text[2] <= 0x8a;
}

/* Length of the blank that the text starts with, or ends with; 0 when there is none. */
static size_t blank_at(struct json_text text, bool at_end)
{
    const char *one;

    if (text.length == 0)
        return 0;
    one = text.start + (at_end ? text.length - 1 : 0);
    if (*one == ' ' || (*one >= '\t' && *one <= '\r'))
        return 1;
    for (size_t i = 0; i < sizeof wide_blanks / sizeof *wide_blanks; i++) {
        size_t length = strlen(wide_blanks[i]);

        if (text.length >= length &&
            memcmp(text.start + (at_end ? text.length - length : 0), wide_blanks[i], length) == 0)
            return length;
    }
    return text.length >= 3 && is_general_space(text.start + (at_end ? text.length - 3 : 0)) ? 3 : 0;
}

/* Digits, with single `_` between them in strings; behind them, or NULL when there are none. */
static const char *behind_digits(const char *at, const char *end)
{
    if (at >= end || !is_digit(*at))
        return NULL;
    while (at < end && (is_digit(*at) || (*at == '_' && at + 1 < end && is_digit(at[1]))))
        at++;
    return at;
}

static int64_t read_exponent(const char *at, const char *end)
{
    int64_t exponent = 0;

    for (; at < end; at++) {
        if (is_digit(*at) && exponent < EXPONENT_MAX)
            exponent = exponent * 10 + (*at - '0');
    }
    return exponent;
}

/* The exponent part, if there is one: false when it has no digits. */
static bool parse_exponent(const char **at, const char *end, struct decimal *decimal)
{
    bool negative = false;
    const char *digits = *at + 1;
    const char *behind;

    if (*at >= end || (**at != 'e' && **at != 'E'))
        return true;
    if (digits < end && (*digits == '+' || *digits == '-'))
        negative = *digits++ == '-';
    behind = behind_digits(digits, end);
    if (behind == NULL)
        return false;
    decimal->exponent = read_exponent(digits, behind);
    if (negative)
        decimal->exponent = -decimal->exponent;
    *at = behind;
    return true;
}

/* All of the text is one number: JSON's, and what strings may say besides: a plus, `_`, a point without digits. */
static bool parse_decimal(const char *at, size_t length, struct decimal *decimal)
{
    const char *end = at + length;
    const char *behind;

    *decimal = (struct decimal){0};
    if (at < end && (*at == '-' || *at == '+'))
        decimal->negative = *at++ == '-';
    decimal->whole = at;
    behind = behind_digits(at, end);
    if (behind == NULL && !(at + 1 < end && *at == '.' && is_digit(at[1])))
        return false;
    if (behind != NULL) {
        decimal->whole_length = (size_t)(behind - at);
        at = behind;
    }
    if (at < end && *at == '.') {
        decimal->fraction = ++at;
        behind = behind_digits(at, end);
        if (behind != NULL) {
            decimal->fraction_length = (size_t)(behind - at);
            at = behind;
        }
    }
    return parse_exponent(&at, end, decimal) && at == end;
}

static struct json_text trim(struct json_text text)
{
    size_t blank;

    while ((blank = blank_at(text, false)) > 0) {
        text.start += blank;
        text.length -= blank;
    }
    while ((blank = blank_at(text, true)) > 0)
        text.length -= blank;
    return text;
}

/* What a number may be in: a number's own text, or a string's. *string holds the latter, NULL for lack of memory. */
static struct json_text plain_text(struct json_text value, json_t **string)
{
    *string = NULL;
    if (json_text_type(value) != JSON_TEXT_STRING)
        return value;
    *string = json_text_string(value);
    return (struct json_text){.start = json_string_value(*string), .length = json_string_length(*string)};
}

/* --- integers ---------------------------------------------------------------------------------------- */

/* The digits of a decimal in their order, without `_`. */
struct digits {
    const struct decimal *decimal;
    size_t next;
};

/* The next digit, -1 at the end. */
static int next_digit(struct digits *digits)
{
    const struct decimal *decimal = digits->decimal;

    while (digits->next < decimal->whole_length + decimal->fraction_length) {
        size_t i = digits->next++;
        char c = i < decimal->whole_length ? decimal->whole[i] : decimal->fraction[i - decimal->whole_length];

        if (c != '_')
            return c - '0';
    }
    return -1;
}

static int64_t count_digits(const char *text, size_t length)
{
    int64_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += text[i] != '_';
    return count;
}

/*
 * Walks the digits that stand before the point once it is moved by the exponent; those behind it must be zero. False
 * when they are not.
 */
static bool decimal_to_integer(const struct decimal *decimal, int64_t *number)
{
    struct digits digits = {.decimal = decimal};
    int64_t before_point = count_digits(decimal->whole, decimal->whole_length) + decimal->exponent;
    int64_t value = 0;
    bool overflow = false;
    int digit;

    for (int64_t place = 0; (digit = next_digit(&digits)) >= 0; place++) {
        if (place >= before_point) {
            if (digit != 0)
                return false;
        } else {
            overflow |= __builtin_mul_overflow(value, 10, &value) || __builtin_sub_overflow(value, digit, &value);
        }
    }
    /* What the exponent adds behind the digits. */
    before_point -=
        count_digits(decimal->whole, decimal->whole_length) + count_digits(decimal->fraction, decimal->fraction_length);
    for (; before_point > 0 && value != 0 && !overflow; before_point--)
        overflow = __builtin_mul_overflow(value, 10, &value);
    /* Counted below zero, where there is one number more. */
    if (!decimal->negative && !overflow)
        overflow = __builtin_sub_overflow(0, value, &value);
    *number = !overflow ? value : decimal->negative ? INT64_MIN : INT64_MAX;
    return true;
}

/* `60.` and `.0` are numbers, but no integers. */
static bool has_bare_point(const struct decimal *decimal)
{
    return decimal->fraction != NULL && (decimal->fraction_length == 0 || decimal->whole_length == 0);
}

static enum coerced text_to_integer(struct json_text text, bool is_string, int64_t *number)
{
    struct decimal decimal;

    text = trim(text);
    if (!parse_decimal(text.start, text.length, &decimal) || has_bare_point(&decimal))
        return COERCE_PARSING;
    if (decimal_to_integer(&decimal, number))
        return COERCED;
    return is_string ? COERCE_PARSING : COERCE_FRACTION;
}

enum coerced coerce_integer_word(const char *word, size_t length, int64_t *number)
{
    return text_to_integer((struct json_text){.start = word, .length = length}, true, number);
}

enum coerced coerce_integer(struct json_text value, int64_t *number)
{
    struct json_text text;
    json_t *string;
    enum coerced result;

    switch (json_text_type(value)) {
    case JSON_TEXT_BOOLEAN:
        *number = json_text_is_true(value);
        return COERCED;
    case JSON_TEXT_NUMBER:
    case JSON_TEXT_STRING:
        text = plain_text(value, &string);
        result = text.start != NULL ? text_to_integer(text, string != NULL, number) : COERCE_NO_MEMORY;
        json_decref(string);
        return result;
    case JSON_TEXT_NULL:
    case JSON_TEXT_ARRAY:
    case JSON_TEXT_OBJECT:
    default:
        return COERCE_TYPE;
    }
}

/* --- numbers ----------------------------------------------------------------------------------------- */

static bool is_word(struct json_text text, const char *word)
{
    return strlen(word) == text.length && strncasecmp(text.start, word, text.length) == 0;
}

static bool says_not_finite(struct json_text text)
{
    if (text.length > 0 && (*text.start == '+' || *text.start == '-')) {
        text.start++;
        text.length--;
    }
    return is_word(text, "inf") || is_word(text, "infinity") || is_word(text, "nan");
}

/* strtod() of a checked decimal, whose `_` it would not take. */
static enum coerced to_double(struct json_text text, double *number)
{
    char *copy = malloc(text.length + 1);
    size_t used = 0;

    if (copy == NULL) {
        memory_note_refusal();
        return COERCE_NO_MEMORY;
    }
    for (size_t i = 0; i < text.length; i++) {
        if (text.start[i] != '_')
            copy[used++] = text.start[i];
    }
    copy[used] = '\0';
    *number = strtod(copy, NULL);
    free(copy);
    return isfinite(*number) ? COERCED : COERCE_NOT_FINITE;
}

static enum coerced text_to_number(struct json_text text, double *number)
{
    struct decimal decimal;

    text = trim(text);
    if (says_not_finite(text))
        return COERCE_NOT_FINITE;
    if (!parse_decimal(text.start, text.length, &decimal))
        return COERCE_PARSING;
    return to_double(text, number);
}

enum coerced coerce_number(struct json_text value, double *number)
{
    struct json_text text;
    json_t *string;
    enum coerced result;

    switch (json_text_type(value)) {
    case JSON_TEXT_BOOLEAN:
        *number = json_text_is_true(value);
        return COERCED;
    case JSON_TEXT_NUMBER:
    case JSON_TEXT_STRING:
        text = plain_text(value, &string);
        result = text.start != NULL ? text_to_number(text, number) : COERCE_NO_MEMORY;
        json_decref(string);
        return result;
    case JSON_TEXT_NULL:
    case JSON_TEXT_ARRAY:
    case JSON_TEXT_OBJECT:
    default:
        return COERCE_TYPE;
    }
}

/* --- booleans ---------------------------------------------------------------------------------------- */

bool coerce_bool_word(const char *word, size_t length, bool *flag)
{
    static const char *const words[][2] = {{"0", "1"}, {"f", "t"},    {"false", "true"},
                                           {"n", "y"}, {"no", "yes"}, {"off", "on"}};
    struct json_text text = {.start = word, .length = length};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        for (int meaning = 0; meaning < 2; meaning++) {
            if (is_word(text, words[i][meaning])) {
                *flag = meaning == 1;
                return true;
            }
        }
    }
    return false;
}

enum coerced coerce_bool(struct json_text value, bool *flag)
{
    struct decimal decimal;
    int64_t number;
    json_t *string;
    bool known;

    switch (json_text_type(value)) {
    case JSON_TEXT_BOOLEAN:
        *flag = json_text_is_true(value);
        return COERCED;
    case JSON_TEXT_STRING:
        string = json_text_string(value);
        known = coerce_bool_word(json_string_value(string), json_string_length(string), flag);
        json_decref(string);
        return known ? COERCED : COERCE_PARSING;
    case JSON_TEXT_NUMBER:
        if (!parse_decimal(value.start, value.length, &decimal) || !decimal_to_integer(&decimal, &number) ||
            number == INT64_MAX || number == INT64_MIN)
            return COERCE_TYPE;
        *flag = number == 1;
        return number == 0 || number == 1 ? COERCED : COERCE_PARSING;
    case JSON_TEXT_NULL:
    case JSON_TEXT_ARRAY:
    case JSON_TEXT_OBJECT:
    default:
        return COERCE_TYPE;
    }
}
