/* The shape of an output event: what it takes means the same to jansson, and what is not of that shape is left alone.
 */
#include "worker/output_event.h"

#include "tests/unit/unit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const taken[] = {
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"}}}",
    "{\"event\":{\"data\":{\"stderr\":\"aGk=\"}}}",
    "{\"event\":{\"data\":{\"stdout\":\"\"}}}",
    "{\"event\": {\"data\": {\"stdout\": \"aGk=\"}}}",
    " {\n\"event\"\t:\r{ \"data\" : { \"stderr\" : \"aGk=\" } } } \n",
};

static const char *const left[] = {
    "",
    "{",
    "null",
    "{\"event\":{}}",
    "{\"event\":{\"start\":{\"pid\":1}}}",
    "{\"event\":{\"data\":{}}}",
    "{\"event\":{\"data\":{\"pty\":\"aGk=\"}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\",\"stderr\":\"aGk=\"}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"},\"x\":1}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"}},\"x\":1}",
    "{\"x\":1,\"event\":{\"data\":{\"stdout\":\"aGk=\"}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aG\\u006b=\"}}}",
    "{\"event\":{\"data\":{\"stdout\":\"a\\\"}}}",
    "{\"event\":{\"data\":{\"stdout\":12}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"}}}}",
    "{\"event\":{\"data\":{\"stdout\":\"aGk=\"}}}x",
    "[{\"event\":{\"data\":{\"stdout\":\"aGk=\"}}}]",
    "{\"event\" {\"data\":{\"stdout\":\"aGk=\"}}}",
};

/* In memory of its own length, so that a byte too far is seen. */
static bool read_copy(const char *payload, struct output_event *event, char **copy)
{
    size_t length = strlen(payload);

    *copy = malloc(length > 0 ? length : 1);
    assert_non_null(*copy);
    memcpy(*copy, payload, length);
    return output_event_read(*copy, length, event);
}

static void test_what_it_takes_means_the_same_to_a_parser(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        json_t *root = json_loads(taken[i], 0, NULL), *data;
        struct output_event event;
        const char *text;
        char *copy;

        assert_non_null(root);
        assert_true(read_copy(taken[i], &event, &copy));
        data = json_object_get(json_object_get(root, "event"), "data");
        text = json_string_value(json_object_get(data, event.is_stderr ? "stderr" : "stdout"));
        assert_non_null(text);
        assert_int_equal(event.length, strlen(text));
        assert_memory_equal(event.text, text, event.length);
        json_decref(root);
        free(copy);
    }
}

static void test_anything_else_is_left_to_the_parser(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) {
        struct output_event event;
        char *copy;

        if (read_copy(left[i], &event, &copy))
            fail_msg("taken: %s", left[i]);
        free(copy);
    }
}

static void test_no_part_of_an_event_is_taken(void **state)
{
    char *copy = malloc(strlen(taken[0]));
    struct output_event event;

    (void)state;
    assert_non_null(copy);
    for (size_t length = 0; length < strlen(taken[0]); length++) {
        memcpy(copy, taken[0], length);
        assert_false(output_event_read(copy, length, &event));
    }
    free(copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_it_takes_means_the_same_to_a_parser),
        cmocka_unit_test(test_anything_else_is_left_to_the_parser),
        cmocka_unit_test(test_no_part_of_an_event_is_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
