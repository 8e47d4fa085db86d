/* The grammar of `.env` (http-api.md 15.2, python-dotenv where that is silent), its bounds, its bad lines. */
#include "common/dotenv.h"
#include "tests/unit/unit.h"

#include <errno.h>

enum { LINES_MAX = 16 };

struct bad {
    size_t count;
    size_t lines[LINES_MAX];
};

static void on_bad_line(size_t line, void *context)
{
    struct bad *bad = context;

    if (bad->count < LINES_MAX)
        bad->lines[bad->count] = line;
    bad->count++;
}

/* The parser gets a copy of exactly this size: valgrind sees a byte read beyond it. */
static struct dotenv *parse(const char *text, size_t length, struct bad *bad)
{
    char *copy = malloc(length > 0 ? length : 1);
    struct dotenv *values;

    assert_non_null(copy);
    memcpy(copy, text, length);
    *bad = (struct bad){0};
    values = dotenv_parse(copy, length, on_bad_line, bad);
    free(copy);
    return values;
}

static void expect_text(const char *wanted, const char *seen, const char *text)
{
    if (wanted == NULL ? seen != NULL : seen == NULL || strcmp(wanted, seen) != 0)
        fail_msg("of <<%s>>: %s instead of %s", text, seen != NULL ? seen : "nothing",
                 wanted != NULL ? wanted : "nothing");
}

/* What a text makes of A and B, and the first line that is bad: 0 for none. */
struct example {
    const char *text, *a, *b;
    size_t bad_line;
};

static void expect_examples(const struct example *examples, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *text = examples[i].text;
        struct bad bad;
        struct dotenv *values = parse(text, strlen(text), &bad);

        assert_non_null(values);
        expect_text(examples[i].a, dotenv_get(values, "A"), text);
        expect_text(examples[i].b, dotenv_get(values, "B"), text);
        if (bad.count != (examples[i].bad_line > 0) || bad.lines[0] != examples[i].bad_line)
            fail_msg("of <<%s>>: %zu bad lines, the first is %zu", text, bad.count, bad.lines[0]);
        dotenv_unref(values);
    }
}

static void test_lines(void **state)
{
    static const struct example examples[] = {
        {"", NULL, NULL, 0},
        {"A=1", "1", NULL, 0},
        {"A=1\nB=2\n", "1", "2", 0},
        {"A=1\r\nB=2\r\n", "1", "2", 0},
        {"A=1\rB=2\r", "1", "2", 0},
        {"\xEF\xBB\xBF"
         "A=1\nB=2",
         "1", "2", 0},
        {"\n\n  \t\n\tA=1\n\n", "1", NULL, 0},
        {"A=1\nA=2\n", "2", NULL, 0},
        {"A=\nB=2", "", "2", 0},
        {"A = \t 1 \nB\t=2", "1", "2", 0},
        {"export A=1\nexport\t B = 2", "1", "2", 0},
        {"export=7\nA=${export}", "7", NULL, 0},
        {"exportA=7\nA=${exportA}", "7", NULL, 0},
        {"'A'=1\nexport 'B' = 2", "1", "2", 0},
        {"A=1\nA\nB=2", "1", "2", 0},
        {"export A\nB # alone\n", NULL, NULL, 0},
        {"A=a=b\nB==", "a=b", "=", 0},
        {"A.b-c=1\nA=${A.b-c}", "1", NULL, 0},
    };

    (void)state;
    expect_examples(examples, COUNT(examples));
}

static void test_comments(void **state)
{
    static const struct example examples[] = {
        {"# A=0\nA=1", "1", NULL, 0},        {"  # A=0\n\tA=1", "1", NULL, 0}, {"A=1 # one\nB=2\t#two", "1", "2", 0},
        {"A=1#2\nB=#2", "1#2", "#2", 0},     {"A= # one\nB=2", "", "2", 0},    {"A=1 2  3 # 4", "1 2  3", NULL, 0},
        {"A='1' # it's\nB=2", "1", "2", 0},  {"A=\"1\"#\nB=2", "1", "2", 0},   {"A='1 # 2'", "1 # 2", NULL, 0},
        {"export # A=0\nA=1", "1", NULL, 0}, {"A#b=1\nB=2", NULL, "2", 0},
    };

    (void)state;
    expect_examples(examples, COUNT(examples));
}

static void test_quotes_and_escapes(void **state)
{
    static const struct example examples[] = {
        {"A='1'\nB=\"2\"", "1", "2", 0},
        {"A=''\nB=\"\"", "", "", 0},
        {"A=' 1 '\nB=\" 2 \"", " 1 ", " 2 ", 0},
        {"A='it\\'s'\nB='back\\\\'", "it's", "back\\", 0},
        {"A='\\n\\\"\\$'", "\\n\\\"\\$", NULL, 0},
        {"A=\"\\\\ \\' \\\" \\a\\b\\f\\n\\r\\t\\v\"", "\\ ' \" \a\b\f\n\r\t\v", NULL, 0},
        {"A=\"\\d\\x41\\0\"\nB=\"\\\\n\"", "\\d\\x41\\0", "\\n", 0},
        {"A=un\\nquoted\\\\\nB=a'b\"c", "un\\nquoted\\\\", "a'b\"c", 0},
        {"A=\"one\ntwo\"\nB=2", "one\ntwo", "2", 0},
        {"A='one\n\n#two'\nB=2", "one\n\n#two", "2", 0},
        {"A=\"one\r\ntwo\rthree\"\r\nB=2", "one\ntwo\nthree", "2", 0},
    };

    (void)state;
    expect_examples(examples, COUNT(examples));
}

static void test_references(void **state)
{
    static const struct example examples[] = {
        {"B=2\nA=1${B}3", "123", "2", 0},
        {"B=2\nA='${B}'", "2", "2", 0},
        {"B=2\nA=\"${B}${B}\"", "22", "2", 0},
        {"A=${B}\nB=2", "", "2", 0},
        {"A=1\nA=${A}2", "12", NULL, 0},
        {"A=${PROCESS}\nB=${PROCESS:-2}", "of the process", "of the process", 0},
        {"PROCESS=no\nA=${PROCESS}", "of the process", NULL, 0},
        {"A=${EMPTY:-1}\nB=${UNSET:-2}", "", "2", 0},
        {"E=\nA=${E:-1}\nB=${UNSET:-}", "", "", 0},
        {"B='${'PROCESS'}'\n", NULL, NULL, 1},
        {"P=PROCESS\nA=${${P}}\nB='$''", "}", NULL, 3},
        {"B='\\${PROCESS}'\nA=$PROCESS", "$PROCESS", "\\of the process", 0},
        {"A=${UNSET:-${PROCESS}}", "${PROCESS}", NULL, 0},
        {"A=${PROCESS:1}\nB=${PROCESS", "${PROCESS:1}", "${PROCESS", 0},
        {"A=${x:1 ${PROCESS}\nB=${x:-1 ${PROCESS", "${x:1 of the process", "${x:-1 ${PROCESS", 0},
        {"A=$\nB=${}", "$", "", 0},
    };

    (void)state;
    setenv("PROCESS", "of the process", 1);
    setenv("EMPTY", "", 1);
    expect_examples(examples, COUNT(examples));
    unsetenv("PROCESS");
    unsetenv("EMPTY");
}

static void test_a_bad_line_alone_is_skipped(void **state)
{
    static const struct example examples[] = {
        {"=1\nB=2", NULL, "2", 1},
        {"A=1\n\n\nA 2\nB=3", "1", "3", 4},
        {"A=1\r\n\r\nA 2\r\nB=3", "1", "3", 3},
        {"A=\"1\" 2\nB=3", NULL, "3", 1},
        {"A='1''2'\nB=3", NULL, "3", 1},
        {"A=\"1\nB=3", NULL, "3", 1},
        {"A='1\\'\nB=3", NULL, "3", 1},
        {"B=0\nA=\"1\n2\" 3\nB=3", NULL, "3", 2},
        {"'A=1\nB=2", NULL, "2", 1},
        {"''=1\nB=2", NULL, "2", 1},
        {"export =1\nB=2", NULL, "2", 1},
        {"A=\"\\", NULL, NULL, 1},
    };

    (void)state;
    expect_examples(examples, COUNT(examples));
}

static void test_every_bad_line_is_told_in_order(void **state)
{
    static const char text[] = "=1\n=2\nA=3\n\"x\n 4 5\r\n=6";
    static const size_t wanted[] = {1, 2, 5, 6};
    struct bad bad;
    struct dotenv *values = parse(text, strlen(text), &bad);

    (void)state;
    assert_int_equal(bad.count, COUNT(wanted));
    for (size_t i = 0; i < COUNT(wanted); i++)
        assert_int_equal(bad.lines[i], wanted[i]);
    assert_string_equal(dotenv_get(values, "A"), "3");
    dotenv_unref(values);
}

static void test_a_line_with_nul_is_bad(void **state)
{
    static const char text[] = "A=1\0002\nA\0=1\nA='1\0'\n\0\nB=2\n# \0\nC=3";
    static const size_t wanted[] = {1, 2, 3, 4};
    struct bad bad;
    struct dotenv *values = parse(text, sizeof text - 1, &bad);

    (void)state;
    assert_int_equal(bad.count, COUNT(wanted));
    for (size_t i = 0; i < COUNT(wanted); i++)
        assert_int_equal(bad.lines[i], wanted[i]);
    assert_null(dotenv_get(values, "A"));
    assert_string_equal(dotenv_get(values, "B"), "2");
    assert_string_equal(dotenv_get(values, "C"), "3");
    dotenv_unref(values);
}

/* A value of `length` letters, in quotes or not. */
static struct dotenv *parse_long(size_t length, const char *quote, struct bad *bad)
{
    char *text = malloc(length + 16);
    struct dotenv *values;
    size_t used;

    assert_non_null(text);
    used = (size_t)sprintf(text, "A=%s", quote);
    memset(text + used, 'x', length);
    used += length;
    used += (size_t)sprintf(text + used, "%s\nB=2", quote);
    values = parse(text, used, bad);
    free(text);
    return values;
}

static void test_a_value_has_a_longest_length(void **state)
{
    static const char *const quotes[] = {"", "'", "\""};

    (void)state;
    for (size_t i = 0; i < COUNT(quotes); i++) {
        struct bad bad;
        struct dotenv *values = parse_long(DOTENV_VALUE_MAX_BYTES, quotes[i], &bad);

        assert_int_equal(strlen(dotenv_get(values, "A")), DOTENV_VALUE_MAX_BYTES);
        assert_int_equal(bad.count, 0);
        dotenv_unref(values);
        values = parse_long(DOTENV_VALUE_MAX_BYTES + 1, quotes[i], &bad);
        assert_null(dotenv_get(values, "A"));
        assert_string_equal(dotenv_get(values, "B"), "2");
        assert_int_equal(bad.count, 1);
        assert_int_equal(bad.lines[0], 1);
        dotenv_unref(values);
    }
}

static void test_references_cannot_blow_up_a_small_file(void **state)
{
    static const char doubling[] = "A=${A}${A}x\n";
    enum { DOUBLINGS = 20, COPIES = 1000 };
    char text[DOUBLINGS * sizeof doubling + COPIES * 16];
    size_t used = 0, total = 0, copied = 0;
    struct dotenv *values;
    struct bad bad;

    (void)state;
    for (int i = 0; i < DOUBLINGS; i++)
        used += (size_t)sprintf(text + used, "%s", doubling);
    for (int i = 0; i < COPIES; i++)
        used += (size_t)sprintf(text + used, "V%d=${A}\n", i);
    values = parse(text, used, &bad);
    assert_non_null(values);
    assert_true(bad.count > 0);
    for (int i = 0; i < COPIES; i++) {
        const char *value;
        char name[16];

        sprintf(name, "V%d", i);
        value = dotenv_get(values, name);
        copied += value != NULL;
        total += value != NULL ? strlen(value) : 0;
    }
    assert_true(copied > 10);
    assert_true(total <= DOTENV_TOTAL_MAX_BYTES);
    dotenv_unref(values);
}

static void test_a_text_that_is_too_long_is_refused(void **state)
{
    char *text = calloc(1, DOTENV_TEXT_MAX_BYTES + 1);
    struct bad bad;
    struct dotenv *values;

    (void)state;
    assert_non_null(text);
    memset(text, '#', DOTENV_TEXT_MAX_BYTES + 1);
    values = parse(text, DOTENV_TEXT_MAX_BYTES, &bad);
    assert_non_null(values);
    dotenv_unref(values);
    errno = 0;
    assert_null(parse(text, DOTENV_TEXT_MAX_BYTES + 1, &bad));
    assert_int_equal(errno, EFBIG);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_comments),
        cmocka_unit_test(test_quotes_and_escapes),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_a_bad_line_alone_is_skipped),
        cmocka_unit_test(test_every_bad_line_is_told_in_order),
        cmocka_unit_test(test_a_line_with_nul_is_bad),
        cmocka_unit_test(test_a_value_has_a_longest_length),
        cmocka_unit_test(test_references_cannot_blow_up_a_small_file),
        cmocka_unit_test(test_a_text_that_is_too_long_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
