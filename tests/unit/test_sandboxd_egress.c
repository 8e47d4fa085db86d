/* egress: the rules of a create, and what they leave of what the operator gives. */
#include "sandboxd/egress.h"
#include "tests/unit/unit.h"

static struct egress *read_rules(const char *text, char error[static EGRESS_ERROR_MAX_BYTES])
{
    json_t *network = json_loads(text, JSON_DECODE_ANY, NULL);
    struct egress *egress = egress_new(network, error);

    json_decref(network);
    return egress;
}

static void test_what_the_rules_leave(void **state)
{
    static const struct {
        const char *rules, *host, *address;
        bool is_allowed;
    } cases[] = {
        {"null", "a.example", "8.8.8.8", true},
        {"{}", "a.example", "8.8.8.8", true},
        {"{\"allowOut\": null, \"denyOut\": [], \"rules\": {}}", "a.example", "8.8.8.8", true},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "8.8.8.8", "8.8.8.8", false},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "a.example", "8.8.8.8", false},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "8.8.8.9", "8.8.8.9", true},
        {"{\"denyOut\": [\"8.8.8.0/23\"]}", "a.example", "8.8.9.255", false},
        {"{\"denyOut\": [\"8.8.8.0/23\"]}", "a.example", "8.8.10.0", true},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "a.example", "::ffff:8.8.8.8", false},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "a.example", "64:ff9b::8.8.8.8", false},
        {"{\"denyOut\": [\"8.8.8.8\"]}", "a.example", "2002:808:808::1", false},
        {"{\"denyOut\": [\"2001:db8::/33\"]}", "a.example", "2001:db8:7fff::1", false},
        {"{\"denyOut\": [\"2001:db8::/33\"]}", "a.example", "2001:db8:8000::1", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"]}", "a.example", "8.8.8.8", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"]}", "a.example", "2001:db8::1", false},
        {"{\"denyOut\": [\"::/0\"]}", "a.example", "8.8.8.8", false},
        {"{\"allowOut\": [\"8.8.8.8\"]}", "a.example", "9.9.9.9", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"8.8.0.0/16\"]}", "a.example", "8.8.1.1", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"8.8.0.0/16\"]}", "a.example", "8.9.1.1", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"8.8.0.0/16\"]}", "a.example", "64:ff9b::8.8.1.1", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"A.example\"]}", "a.example", "9.9.9.9", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"a.example\"]}", "b.a.example", "9.9.9.9", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*.example\"]}", "b.a.example", "9.9.9.9", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*.example\"]}", "example", "9.9.9.9", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*.example\"]}", "a-example", "9.9.9.9", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*\"]}", "a.example", "9.9.9.9", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"a.example\"]}", "9.9.9.9", "9.9.9.9", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[EGRESS_ERROR_MAX_BYTES] = "";
        struct egress *egress = read_rules(cases[i].rules, error);
        union address address;

        assert_true(address_parse(cases[i].address, 443, &address));
        if (egress == NULL || egress_allows(egress, cases[i].host, &address) != cases[i].is_allowed)
            fail_msg("%s: %s (%s) %s", cases[i].rules, cases[i].host, cases[i].address, error);
        egress_free(egress);
    }
}

static void test_what_no_address_can_be_reached_under_is_not_looked_up(void **state)
{
    static const struct {
        const char *rules, *host;
        bool is_looked_up;
    } cases[] = {
        {"{}", "a.example", true},
        {"{\"denyOut\": [\"8.0.0.0/1\"]}", "a.example", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"]}", "a.example", false},
        {"{\"denyOut\": [\"8.8.8.8\", \"::/0\"]}", "a.example", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*.example\"]}", "a.example", true},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"*.example\"]}", "a.other", false},
        {"{\"denyOut\": [\"0.0.0.0/0\"], \"allowOut\": [\"8.8.8.8\"]}", "a.example", true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[EGRESS_ERROR_MAX_BYTES] = "";
        struct egress *egress = read_rules(cases[i].rules, error);

        assert_non_null(egress);
        assert_int_equal(egress_may_allow(egress, cases[i].host), cases[i].is_looked_up);
        egress_free(egress);
    }
}

static void test_what_is_no_rule_is_told(void **state)
{
    static const struct {
        const char *rules, *word;
    } cases[] = {
        {"[]", "must be an object"},
        {"\"x\"", "must be an object"},
        {"{\"denyOut\": \"8.8.8.8\"}", "network.denyOut must be a list"},
        {"{\"denyOut\": [\"a.example\"]}", "network.denyOut[0] is no address or range"},
        {"{\"denyOut\": [\"8.8.8.8\", 1]}", "network.denyOut[1]"},
        {"{\"denyOut\": [\"8.8.8.8/33\"]}", "network.denyOut[0]"},
        {"{\"denyOut\": [\"8.8.8.8/\"]}", "network.denyOut[0]"},
        {"{\"denyOut\": [\"8.8.8.8/-1\"]}", "network.denyOut[0]"},
        {"{\"denyOut\": [\"8.8.8.8/99999999999\"]}", "network.denyOut[0]"},
        {"{\"denyOut\": [\"::1/129\"]}", "network.denyOut[0]"},
        {"{\"allowOut\": [\"\"]}", "network.allowOut[0] is no address or range and no name"},
        {"{\"allowOut\": [\"a.example/8\"]}", "network.allowOut[0]"},
        {"{\"allowOut\": [\"a b\"]}", "network.allowOut[0]"},
        {"{\"allowOut\": [\"a.*.example\"]}", "network.allowOut[0]"},
        {"{\"allowOut\": [\"a.example:443\"]}", "network.allowOut[0]"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char error[EGRESS_ERROR_MAX_BYTES] = "";

        assert_null(read_rules(cases[i].rules, error));
        if (strstr(error, cases[i].word) == NULL)
            fail_msg("%s: %s", cases[i].rules, error);
    }
}

static void test_the_number_of_rules_is_bounded(void **state)
{
    json_t *network = json_pack("{s:[]}", "denyOut");
    char error[EGRESS_ERROR_MAX_BYTES];
    struct egress *egress;

    (void)state;
    for (int i = 0; i < EGRESS_RULES_MAX; i++)
        json_array_append_new(json_object_get(network, "denyOut"), json_string("8.8.8.8"));
    egress = egress_new(network, error);
    assert_non_null(egress);
    egress_free(egress);
    json_array_append_new(json_object_get(network, "denyOut"), json_string("8.8.8.8"));
    assert_null(egress_new(network, error));
    json_decref(network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_rules_leave),
        cmocka_unit_test(test_what_no_address_can_be_reached_under_is_not_looked_up),
        cmocka_unit_test(test_what_is_no_rule_is_told),
        cmocka_unit_test(test_the_number_of_rules_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
