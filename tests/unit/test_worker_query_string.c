/* Parameters of a target: unknown ones are ignored, the last of a repeated one counts (http-api.md 2.2). */
#include "tests/unit/unit.h"
#include "worker/query_string.h"

static const struct {
    const char *query; /* NULL: the target has none */
    const char *value; /* of a; NULL: absent */
} queries[] = {
    {NULL, NULL},
    {"", NULL},
    {"b=1", NULL},
    {"ab=1&ba=2", NULL},
    {"A=1", NULL},
    {"a", ""},
    {"a=", ""},
    {"a=1", "1"},
    {"a=1&a=2", "2"},
    {"a=1&b=2&a", ""},
    {"&&a=1&&", "1"},
    {"a=b=c", "b=c"},
    {"%61=x", "x"},
    {"a=%20+%2B", "  +"},
    {"a=%zz%4", "%zz%4"},
    {"a=1;b=2", "1;b=2"},
    {"=1&a=%26%3D", "&="},
    {"a=1&%2561=2", "1"},
};

static void test_each_query_gives_its_value(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(queries); i++) {
        struct span query = {queries[i].query, queries[i].query != NULL ? strlen(queries[i].query) : 0};
        size_t length = 0;
        char *value = query_string_get(query, "a", &length);

        if (queries[i].value == NULL ? value != NULL : value == NULL || strcmp(value, queries[i].value) != 0)
            fail_msg("'%s' gives '%s'", queries[i].query, value);
        if (value != NULL)
            assert_int_equal(length, strlen(value));
        free(value);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_query_gives_its_value),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
