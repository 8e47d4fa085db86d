/* The bearer rules of http-api.md 2.5. */
#include "tests/unit/unit.h"
#include "worker/auth.h"

#define CURRENT  "current-key-of-32-bytes-or-longer!"
#define PREVIOUS "previous-key-of-32-bytes-or-longer"

static const struct {
    const char *authorization; /* NULL: no header */
    enum auth_result result;
} requests[] = {
    {NULL, AUTH_MISSING},
    {"", AUTH_MISSING},
    {"Bearer", AUTH_MISSING},
    {"Bearer ", AUTH_MISSING},
    {"Bearer \t ", AUTH_MISSING},
    {CURRENT, AUTH_MISSING},
    {"Basic " CURRENT, AUTH_MISSING},
    {"Bearer" CURRENT, AUTH_MISSING},
    {"Bearers " CURRENT, AUTH_MISSING},
    {"Bearer " CURRENT, AUTH_OK},
    {"Bearer " PREVIOUS, AUTH_OK},
    {"bearer " CURRENT, AUTH_OK},
    {"BEARER\t  " CURRENT " \t", AUTH_OK},
    {"Bearer x", AUTH_WRONG},
    {"Bearer " CURRENT "x", AUTH_WRONG},
    {"Bearer current-key-of-32-bytes-or-longer", AUTH_WRONG},
    {"Bearer " CURRENT " " CURRENT, AUTH_WRONG},
    {"Bearer CURRENT-key-of-32-bytes-or-longer!", AUTH_WRONG},
    {"Bearer \xc3\xa9", AUTH_WRONG},
    {"Bearer \x7f", AUTH_WRONG},
    {"Bearer \x01", AUTH_WRONG},
};

static struct span span_of(const char *text)
{
    return (struct span){text, text != NULL ? strlen(text) : 0};
}

static void test_each_authorization_gets_its_result(void **state)
{
    struct auth auth;

    (void)state;
    auth_init(&auth, CURRENT, PREVIOUS);
    for (size_t i = 0; i < COUNT(requests); i++) {
        if (auth_check(&auth, span_of(requests[i].authorization)) != requests[i].result)
            fail_msg("'%s' is not %d", requests[i].authorization, (int)requests[i].result);
    }
}

static void test_without_a_previous_key_only_the_current_one_counts(void **state)
{
    struct auth auth;

    (void)state;
    auth_init(&auth, CURRENT, "");
    assert_int_equal(auth_check(&auth, span_of("Bearer " CURRENT)), AUTH_OK);
    assert_int_equal(auth_check(&auth, span_of("Bearer " PREVIOUS)), AUTH_WRONG);
    assert_int_equal(auth_check(&auth, span_of("Bearer ")), AUTH_MISSING);
}

static void test_without_a_current_key_auth_is_off(void **state)
{
    struct auth auth;

    (void)state;
    auth_init(&auth, "", PREVIOUS);
    assert_int_equal(auth_check(&auth, span_of(NULL)), AUTH_OK);
    assert_int_equal(auth_check(&auth, span_of("Bearer x")), AUTH_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_authorization_gets_its_result),
        cmocka_unit_test(test_without_a_previous_key_only_the_current_one_counts),
        cmocka_unit_test(test_without_a_current_key_auth_is_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
