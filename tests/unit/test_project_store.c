/* The last good version: what was put last is got by whoever starts later. */
#include "common/project_store.h"
#include "common/settings.h"
#include "tests/unit/unit.h"

#include <sys/wait.h>
#include <unistd.h>

static void expect(struct project_store *store, const char *wanted)
{
    char *text;
    size_t length;

    assert_true(project_store_get(store, &text, &length));
    assert_int_equal(length, wanted != NULL ? strlen(wanted) : 0);
    if (wanted != NULL)
        assert_string_equal(text, wanted);
    else
        assert_null(text);
    free(text);
}

static void test_what_was_put_last_counts(void **state)
{
    struct project_store *store = project_store_new();
    char *text;
    size_t length;

    (void)state;
    assert_false(project_store_get(store, &text, &length));
    assert_false(project_store_get_first(store, &text, &length));
    assert_int_equal(project_store_provider(store), RUNTIME_AUTO);
    project_store_put(store, "{}", 2, RUNTIME_LOCAL);
    expect(store, "{}");
    project_store_put(store, "{\"a\":1}", 7, RUNTIME_E2B);
    expect(store, "{\"a\":1}");
    project_store_put(store, NULL, 0, RUNTIME_AUTO);
    expect(store, NULL);
    assert_int_equal(project_store_provider(store), RUNTIME_LOCAL); /* of the first version */
    assert_true(project_store_get_first(store, &text, &length));
    assert_string_equal(text, "{}");
    free(text);
    project_store_free(store);
}

static void test_a_child_puts_for_its_parent(void **state)
{
    struct project_store *store = project_store_new();
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        project_store_put(store, "child", 5, RUNTIME_AUTO);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    expect(store, "child");
    project_store_free(store);
}

static void test_a_version_is_news_once(void **state)
{
    struct project_store *store = project_store_new();

    (void)state;
    assert_true(project_store_is_news(store, 5));
    assert_false(project_store_is_news(store, 5));
    assert_true(project_store_is_news(store, 6));
    project_store_free(store);
}

static void test_what_is_too_large_is_not_kept(void **state)
{
    struct project_store *store = project_store_new();
    char *big = calloc(1, PROJECT_STORE_MAX_BYTES + 1);

    (void)state;
    project_store_put(store, "{}", 2, RUNTIME_AUTO);
    project_store_put(store, big, PROJECT_STORE_MAX_BYTES + 1, RUNTIME_AUTO);
    expect(store, "{}");
    free(big);
    project_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_last_counts),
        cmocka_unit_test(test_a_child_puts_for_its_parent),
        cmocka_unit_test(test_a_version_is_news_once),
        cmocka_unit_test(test_what_is_too_large_is_not_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
