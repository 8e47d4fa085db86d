/* Values taken as another type (http-api.md 3.3): exact, however long. */
#include "tests/unit/unit.h"
#include "worker/coerce.h"

static struct json_text check(const char *text)
{
    struct json_text root;
    struct json_text_fault fault;

    if (json_text_check(text, strlen(text), &root, &fault) != JSON_TEXT_OK)
        fail_msg("%s is not JSON: %s", text, fault.reason);
    return root;
}

static const struct {
    const char *text;
    enum coerced result;
    int64_t number;
} integers[] = {
    {"60", COERCED, 60},
    {"-60", COERCED, -60},
    {"60.0", COERCED, 60},
    {"1e2", COERCED, 100},
    {"1.5e1", COERCED, 15},
    {"100e-2", COERCED, 1},
    {"0.0000e-99999999999999999999", COERCED, 0},
    {"-0", COERCED, 0},
    {"true", COERCED, 1},
    {"false", COERCED, 0},
    {"\" 60 \"", COERCED, 60},
    {"\"\\t60\\n\"", COERCED, 60},
    {"\"+60\"", COERCED, 60},
    {"\"-0060\"", COERCED, -60},
    {"\"6_0\"", COERCED, 60},
    {"\"60.0\"", COERCED, 60},
    {"\"60.\"", COERCE_PARSING, 0},
    {"\".0\"", COERCE_PARSING, 0},
    {"\"\\u00a0\\u2003\\u200a60\\u3000\\u2028\\u0085\"", COERCED, 60},
    {"\"60\\u200b\"", COERCE_PARSING, 0},
    {"\"\\u2003\"", COERCE_PARSING, 0},
    {"\"1e2\"", COERCED, 100},
    {"\"\\u0036\\u0030\"", COERCED, 60},
    {"9223372036854775807", COERCED, INT64_MAX},
    {"-9223372036854775808", COERCED, INT64_MIN},
    {"9223372036854775808", COERCED, INT64_MAX},
    {"-9223372036854775809", COERCED, INT64_MIN},
    {"99999999999999999999999", COERCED, INT64_MAX},
    {"1e999999999999999999999", COERCED, INT64_MAX},
    {"-1e999", COERCED, INT64_MIN},
    {"60.5", COERCE_FRACTION, 0},
    {"1e-1", COERCE_FRACTION, 0},
    {"1e-99999999999999999999", COERCE_FRACTION, 0},
    {"60.00000000000000000000000000000000001", COERCE_FRACTION, 0},
    {"\"60.5\"", COERCE_PARSING, 0},
    {"\"\"", COERCE_PARSING, 0},
    {"\" \"", COERCE_PARSING, 0},
    {"\"6 0\"", COERCE_PARSING, 0},
    {"\"_60\"", COERCE_PARSING, 0},
    {"\"60_\"", COERCE_PARSING, 0},
    {"\"6__0\"", COERCE_PARSING, 0},
    {"\"0x10\"", COERCE_PARSING, 0},
    {"\"+-6\"", COERCE_PARSING, 0},
    {"\"6\\u00000\"", COERCE_PARSING, 0},
    {"\"true\"", COERCE_PARSING, 0},
    {"[]", COERCE_TYPE, 0},
    {"{}", COERCE_TYPE, 0},
};

static void test_integers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(integers); i++) {
        int64_t number = 0;
        enum coerced result = coerce_integer(check(integers[i].text), &number);

        if (result != integers[i].result || (result == COERCED && number != integers[i].number))
            fail_msg("%s: result %d, number %lld", integers[i].text, (int)result, (long long)number);
    }
}

static const struct {
    const char *text;
    enum coerced result;
    double number;
} numbers[] = {
    {"1.5", COERCED, 1.5},
    {"0", COERCED, 0},
    {"\" 1.5 \"", COERCED, 1.5},
    {"\"1e3\"", COERCED, 1000},
    {"\".5\"", COERCED, 0.5},
    {"\"1_0.5\"", COERCED, 10.5},
    {"true", COERCED, 1},
    {"1e-999", COERCED, 0},
    {"1e999", COERCE_NOT_FINITE, 0},
    {"\"inf\"", COERCE_NOT_FINITE, 0},
    {"\"-Infinity\"", COERCE_NOT_FINITE, 0},
    {"\"nan\"", COERCE_NOT_FINITE, 0},
    {"\"0x1p3\"", COERCE_PARSING, 0},
    {"\"one\"", COERCE_PARSING, 0},
    {"\"\"", COERCE_PARSING, 0},
    {"[]", COERCE_TYPE, 0},
};

static void test_numbers(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(numbers); i++) {
        double number = 0;
        enum coerced result = coerce_number(check(numbers[i].text), &number);

        if (result != numbers[i].result || (result == COERCED && number != numbers[i].number))
            fail_msg("%s: result %d, number %g", numbers[i].text, (int)result, number);
    }
}

static const struct {
    const char *text;
    enum coerced result;
    bool flag;
} booleans[] = {
    {"true", COERCED, true},
    {"false", COERCED, false},
    {"1", COERCED, true},
    {"0", COERCED, false},
    {"1.0", COERCED, true},
    {"0.0", COERCED, false},
    {"\"t\"", COERCED, true},
    {"\"F\"", COERCED, false},
    {"\"TRUE\"", COERCED, true},
    {"\"off\"", COERCED, false},
    {"\"On\"", COERCED, true},
    {"\"yes\"", COERCED, true},
    {"\"n\"", COERCED, false},
    {"\"1\"", COERCED, true},
    {"2", COERCE_PARSING, false},
    {"2.0", COERCE_PARSING, false},
    {"0.5", COERCE_TYPE, false},
    {"\"\"", COERCE_PARSING, false},
    {"\"maybe\"", COERCE_PARSING, false},
    {"\"on\\u0000\"", COERCE_PARSING, false},
    {"[]", COERCE_TYPE, false},
    {"{}", COERCE_TYPE, false},
};

static void test_booleans(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(booleans); i++) {
        bool flag = false;
        enum coerced result = coerce_bool(check(booleans[i].text), &flag);

        if (result != booleans[i].result || (result == COERCED && flag != booleans[i].flag))
            fail_msg("%s: result %d, flag %d", booleans[i].text, (int)result, flag);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_booleans),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
