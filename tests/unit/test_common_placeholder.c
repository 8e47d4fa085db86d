/* Placeholders: what is one, how long it is, and what it names. */
#include "common/placeholder.h"
#include "tests/unit/unit.h"

static const struct {
    const char *text;
    size_t length; /* 0: it is none */
    const char *name;
    const char *fallback;
} variables[] = {
    {"${A}", 4, "A", NULL},         {"${_a1}rest", 6, "_a1", NULL}, {"${A:-}", 6, "A", ""},
    {"${A:-x y}z}", 9, "A", "x y"}, {"${A:-${B}}", 9, "A", "${B"},  {"", 0, NULL, NULL},
    {"$A", 0, NULL, NULL},          {"${}", 0, NULL, NULL},         {"${1}", 0, NULL, NULL},
    {"${A", 0, NULL, NULL},         {"${A-x}", 0, NULL, NULL},      {"${A:x}", 0, NULL, NULL},
    {"${A:-x", 0, NULL, NULL},      {"${A }", 0, NULL, NULL},       {"x${A}", 0, NULL, NULL},
};

static void test_variables(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        struct placeholder_variable found = {.name = NULL};
        size_t length = placeholder_variable(variables[i].text, strlen(variables[i].text), &found);

        assert_int_equal(length, variables[i].length);
        if (length == 0)
            continue;
        assert_int_equal(found.name_length, strlen(variables[i].name));
        assert_memory_equal(found.name, variables[i].name, found.name_length);
        assert_int_equal(found.fallback == NULL, variables[i].fallback == NULL);
        if (found.fallback == NULL || variables[i].fallback == NULL)
            continue;
        assert_int_equal(found.fallback_length, strlen(variables[i].fallback));
        assert_memory_equal(found.fallback, variables[i].fallback, found.fallback_length);
    }
}

static void test_the_longest_name(void **state)
{
    char text[VARIABLE_NAME_MAX_BYTES + 5];
    struct placeholder_variable found;

    (void)state;
    memset(text, 'A', sizeof text);
    memcpy(text, "${", 2);
    text[VARIABLE_NAME_MAX_BYTES + 2] = '}';
    assert_int_equal(placeholder_variable(text, VARIABLE_NAME_MAX_BYTES + 3, &found), VARIABLE_NAME_MAX_BYTES + 3);
    text[VARIABLE_NAME_MAX_BYTES + 2] = 'A';
    text[VARIABLE_NAME_MAX_BYTES + 3] = '}';
    assert_int_equal(placeholder_variable(text, VARIABLE_NAME_MAX_BYTES + 4, &found), 0);
}

static const struct {
    const char *text;
    size_t length;
    const char *path;
} sources[] = {
    {"{{body.a}}", 10, "body.a"},
    {"{{ body.a-b.0 \t}}}", 17, "body.a-b.0"},
    {"{{body}}", 8, "body"},
    {"{{_}}", 5, "_"},
    {"{{body.}}", 0, NULL},
    {"{{body..a}}", 0, NULL},
    {"{{.a}}", 0, NULL},
    {"{{1.a}}", 0, NULL},
    {"{{a b}}", 0, NULL},
    {"{{a-b}}", 0, NULL},
    {"{{}}", 0, NULL},
    {"{{   }}", 0, NULL},
    {"{{a}", 0, NULL},
    {"{{a", 0, NULL},
    {"{a}}}}", 0, NULL},
};

static void test_sources(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        const char *path = NULL;
        size_t path_length = 0;
        size_t length = placeholder_source(sources[i].text, strlen(sources[i].text), &path, &path_length);

        assert_int_equal(length, sources[i].length);
        if (length == 0)
            continue;
        assert_int_equal(path_length, strlen(sources[i].path));
        assert_memory_equal(path, sources[i].path, path_length);
    }
}

/* Whatever is cut off a text, nothing behind its end is looked at: valgrind and sanitizers watch the copy. */
static void test_cut_texts(void **state)
{
    static const char *const whole[] = {"${NAME:-default}", "{{ body.path-to.it }}"};

    (void)state;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        for (size_t length = 1; length < strlen(whole[i]); length++) {
            char *text = malloc(length);
            struct placeholder_variable variable;
            const char *path;
            size_t path_length;

            assert_non_null(text);
            memcpy(text, whole[i], length);
            assert_int_equal(placeholder_variable(text, length, &variable), 0);
            assert_int_equal(placeholder_source(text, length, &path, &path_length), 0);
            free(text);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_the_longest_name),
        cmocka_unit_test(test_sources),
        cmocka_unit_test(test_cut_texts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
