/*
 * JSON values taken as numbers and booleans: by their text they are what libc makes of it, and a text written anew is
 * the same text.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "worker/coerce.h"
#include "worker/utf8.h"

#include <math.h>

/* A JSON number: as libc reads it. */
static void check_number(struct json_text value)
{
    char *text = fuzz_text((const uint8_t *)value.start, value.length);
    double number = 0, expected = strtod(text, NULL);
    int64_t integer = 0;
    enum coerced result = coerce_number(value, &number);
    bool is_flag;

    FUZZ_CHECK(result == (isfinite(expected) ? COERCED : COERCE_NOT_FINITE));
    FUZZ_CHECK(result != COERCED || (number == expected && signbit(number) == signbit(expected)));
    result = coerce_integer(value, &integer);
    FUZZ_CHECK(result == COERCED || result == COERCE_FRACTION);
    if (result == COERCED && fabs(expected) < 9007199254740992.0)
        FUZZ_CHECK((double)integer == expected);
    if (result == COERCE_FRACTION && fabs(expected) < 1e15 && fabs(expected) > 1e-300)
        FUZZ_CHECK(strpbrk(text, ".eE") != NULL);
    if (coerce_bool(value, &is_flag) == COERCED)
        FUZZ_CHECK(expected == (double)is_flag || isinf(expected) || fabs(expected - is_flag) < 1e-9);
    free(text);
}

/* A string says the same number that its text would be by itself. */
static void check_string(struct json_text value)
{
    json_t *string = json_text_string(value);
    struct json_text root;
    struct json_text_fault fault;
    double number, own;
    int64_t integer, own_integer;
    bool flag, own_flag;

    FUZZ_CHECK(string != NULL);
    if (utf8_is_valid(json_string_value(string), json_string_length(string)) &&
        json_text_check(json_string_value(string), json_string_length(string), &root, &fault) == JSON_TEXT_OK &&
        json_text_type(root) == JSON_TEXT_NUMBER && root.length == json_string_length(string)) {
        FUZZ_CHECK(coerce_number(value, &number) == coerce_number(root, &own));
        if (coerce_number(value, &number) == COERCED)
            FUZZ_CHECK(number == own);
        if (coerce_integer(value, &integer) == COERCED)
            FUZZ_CHECK(coerce_integer(root, &own_integer) == COERCED && integer == own_integer);
    }
    FUZZ_CHECK((coerce_bool(value, &flag) == COERCED) ==
               coerce_bool_word(json_string_value(string), json_string_length(string), &own_flag));
    if (coerce_integer(value, &integer) == COERCED)
        FUZZ_CHECK(coerce_number(value, &number) != COERCE_PARSING);
    json_decref(string);
}

/* Each value of a text. */
static void check_value(struct json_text value)
{
    struct json_text_cursor cursor;
    struct json_text key, inner;

    switch (json_text_type(value)) {
    case JSON_TEXT_NUMBER:
        check_number(value);
        break;
    case JSON_TEXT_STRING:
        check_string(value);
        break;
    case JSON_TEXT_ARRAY:
        cursor = json_text_enter(value);
        while (json_text_next_element(&cursor, &inner))
            check_value(inner);
        break;
    case JSON_TEXT_OBJECT:
        cursor = json_text_enter(value);
        while (json_text_next_member(&cursor, &key, &inner)) {
            check_string(key);
            check_value(inner);
        }
        break;
    case JSON_TEXT_NULL:
    case JSON_TEXT_BOOLEAN:
        break;
    }
}

static void check_rewrite(struct json_text root)
{
    struct evbuffer *out = evbuffer_new(), *again = evbuffer_new();
    struct json_text_fault fault;
    struct json_text written;
    size_t length;

    FUZZ_CHECK(json_text_rewrite(root, out, NULL, NULL));
    length = evbuffer_get_length(out);
    FUZZ_CHECK(json_text_check((const char *)evbuffer_pullup(out, -1), length, &written, &fault) == JSON_TEXT_OK);
    FUZZ_CHECK(written.length == length && json_text_rewrite(written, again, NULL, NULL));
    FUZZ_CHECK(fuzz_buffers_equal(out, again));
    evbuffer_free(out);
    evbuffer_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    struct json_text root;
    struct json_text_fault fault;
    int64_t integer;
    bool flag;

    (void)coerce_bool_word(text, size, &flag);
    (void)!coerce_integer_word(text, size, &integer);
    if (size == 0 || !utf8_is_valid(text, size) || json_text_check(text, size, &root, &fault) != JSON_TEXT_OK)
        return 0;
    check_value(root);
    check_rewrite(root);
    return 0;
}
