/* What a service was seen not to have: for a minute, for that key only. */
#include "tests/unit/unit.h"
#include "worker/template_memory.h"

static struct e2b_service service(const char *key)
{
    return (struct e2b_service){.api_url = (char *)"https://api", .api_key = (char *)key};
}

static void test_a_missing_template_is_remembered_for_a_minute(void **state)
{
    struct template_memory memory = {0};
    struct e2b_service own = service("key");

    (void)state;
    assert_false(template_memory_is_missing(&memory, &own, "t", 1000));
    template_memory_note(&memory, &own, "t", 1000);
    assert_true(template_memory_is_missing(&memory, &own, "t", 1000));
    assert_true(template_memory_is_missing(&memory, &own, "t", 60999));
    assert_false(template_memory_is_missing(&memory, &own, "t", 61000));
    assert_false(template_memory_is_missing(&memory, &own, "other", 1000));
}

static void test_another_key_is_another_matter(void **state)
{
    struct template_memory memory = {0};
    struct e2b_service own = service("key"), other = service("yek"), empty = service("");

    (void)state;
    template_memory_note(&memory, &own, "t", 1000);
    assert_false(template_memory_is_missing(&memory, &other, "t", 1000));
    assert_false(template_memory_is_missing(&memory, &empty, "keyt", 1000));
}

static void test_the_oldest_is_forgotten(void **state)
{
    struct template_memory memory = {0};
    struct e2b_service own = service("key");
    char name[16];

    (void)state;
    for (int i = 0; i <= TEMPLATE_MEMORY_COUNT; i++) {
        snprintf(name, sizeof name, "t%d", i);
        template_memory_note(&memory, &own, name, 1000 + i);
        template_memory_note(&memory, &own, name, 1000 + i); /* takes no second entry */
    }
    assert_false(template_memory_is_missing(&memory, &own, "t0", 2000));
    assert_true(template_memory_is_missing(&memory, &own, "t1", 2000));
    assert_true(template_memory_is_missing(&memory, &own, name, 2000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_missing_template_is_remembered_for_a_minute),
        cmocka_unit_test(test_another_key_is_another_matter),
        cmocka_unit_test(test_the_oldest_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
