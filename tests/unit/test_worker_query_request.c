/* POST /query's body: bodies and the exact error list they get (http-api.md 3.1 to 3.4, 3.6). */
#include "tests/unit/unit.h"
#include "worker/query_request.h"

#define MISSING_PROMPT "{\"type\":\"missing\",\"loc\":[\"body\",\"prompt\"],\"msg\":\"Field required\"}"

static const struct {
    const char *body;
    const char *errors; /* the list; NULL: accepted; "400": refused as text */
} bodies[] = {
    {"{\"prompt\":\"hi\"}", NULL},
    {"\xef\xbb\xbf{\"prompt\":\"hi\"}", NULL},
    {"{\"prompt\":\" \"}", NULL},
    {"{\"prompt\":\"a\\u0000b\"}", NULL},
    {"{\"prompt\":\"hi\",\"unknown\":[1,{}]}", NULL},
    {"{\"prompt\":1,\"prompt\":\"the last wins\"}", NULL},
    {"", "[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\"}]"},
    {"null", "[{\"type\":\"missing\",\"loc\":[\"body\"],\"msg\":\"Field required\"}]"},
    {"[]",
     "[{\"type\":\"model_attributes_type\",\"loc\":[\"body\"],\"msg\":\"Input should be a valid dictionary or object "
     "to extract fields from\"}]"},
    {"{}", "[" MISSING_PROMPT "]"},
    {"{\"prompt\":null}",
     "[{\"type\":\"string_type\",\"loc\":[\"body\",\"prompt\"],\"msg\":\"Input should be a valid string\"}]"},
    {"{\"prompt\":\"\"}",
     "[{\"type\":\"string_too_short\",\"loc\":[\"body\",\"prompt\"],\"msg\":\"String should have at "
     "least 1 character\",\"ctx\":{\"min_length\":1}}]"},
    {"{\"timeout\":4}", "[" MISSING_PROMPT ",{\"type\":\"greater_than_equal\",\"loc\":[\"body\",\"timeout\"],\"msg\":"
                        "\"Input should be greater than or equal to 5\",\"ctx\":{\"ge\":5}}]"},
    {"{\"prompt\":\"p\",\"timeout\":3601}",
     "[{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"timeout\"],\"msg\":\"Input should be less than or equal to "
     "3600\",\"ctx\":{\"le\":3600}}]"},
    {"{\"prompt\":\"p\",\"timeout\":\"99999999999999999999999\"}",
     "[{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"timeout\"],\"msg\":\"Input should be less than or equal to "
     "3600\",\"ctx\":{\"le\":3600}}]"},
    {"{\"prompt\":\"p\",\"timeout\":60.5}", "[{\"type\":\"int_from_float\",\"loc\":[\"body\",\"timeout\"],\"msg\":"
                                            "\"Input should be a valid integer, got a number "
                                            "with a fractional part\"}]"},
    {"{\"prompt\":\"p\",\"timeout\":\"6 0\"}", "[{\"type\":\"int_parsing\",\"loc\":[\"body\",\"timeout\"],\"msg\":"
                                               "\"Input should be a valid integer, unable to parse "
                                               "string as an integer\"}]"},
    {"{\"prompt\":\"p\",\"max_turns\":[]}",
     "[{\"type\":\"int_type\",\"loc\":[\"body\",\"max_turns\"],\"msg\":\"Input should be a valid integer\"}]"},
    {"{\"prompt\":\"p\",\"max_turns\":false}", "[{\"type\":\"greater_than_equal\",\"loc\":[\"body\",\"max_turns\"],"
                                               "\"msg\":\"Input should be greater than or equal "
                                               "to 1\",\"ctx\":{\"ge\":1}}]"},
    {"{\"prompt\":\"p\",\"e2b_api_key\":\"a b\"}", "[{\"type\":\"value_error\",\"loc\":[\"body\",\"e2b_api_key\"],"
                                                   "\"msg\":\"Value error, e2b_api_key contains invalid "
                                                   "characters\",\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",\"model\":7}",
     "[{\"type\":\"string_type\",\"loc\":[\"body\",\"model\"],\"msg\":\"Input should be a valid string\"}]"},
    {"{\"prompt\":\"p\",\"files\":[]}",
     "[{\"type\":\"dict_type\",\"loc\":[\"body\",\"files\"],\"msg\":\"Input should be a valid dictionary\"}]"},
    {"{\"prompt\":\"p\",\"files\":{\"a\":1}}",
     "[{\"type\":\"string_type\",\"loc\":[\"body\",\"files\",\"a\"],\"msg\":\"Input should be a valid string\"}]"},
    {"{\"prompt\":\"p\",\"files\":{\"/etc/passwd\":\"\"}}",
     "[{\"type\":\"value_error\",\"loc\":[\"body\",\"files\"],\"msg\":\"Value error, Absolute paths are not allowed: "
     "/etc/passwd\",\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",\"files\":{\"C:\\\\x\":\"\"}}",
     "[{\"type\":\"value_error\",\"loc\":[\"body\",\"files\"],\"msg\":\"Value error, Absolute paths are not allowed: "
     "C:\\\\x\",\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",\"files\":{\"a/../../b\":\"\"}}",
     "[{\"type\":\"value_error\",\"loc\":[\"body\",\"files\"],\"msg\":\"Value error, Path traversal not allowed: "
     "a/../../b\",\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",\"files\":{\"./\":\"\"}}",
     "[{\"type\":\"value_error\",\"loc\":[\"body\",\"files\"],\"msg\":\"Value error, Path traversal not allowed: ./\","
     "\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",}", "[{\"type\":\"json_invalid\",\"loc\":[\"body\",14],\"msg\":\"JSON decode error\",\"ctx\":{"
                            "\"error\":\"expected a key in double quotes\"}}]"},
    {"{\"prompt\":\"\\ud800\"}",
     "[{\"type\":\"json_invalid\",\"loc\":[\"body\",12],\"msg\":\"JSON decode error\",\"ctx\":{"
     "\"error\":\"lone surrogate\"}}]"},
    {"\xef\xbb\xbf{", "[{\"type\":\"json_invalid\",\"loc\":[\"body\",4],\"msg\":\"JSON decode error\",\"ctx\":{"
                      "\"error\":\"expected a key in double quotes\"}}]"},
    {"{\"prompt\":\"p\",\"timeout\":99999999999999999999999}",
     "[{\"type\":\"less_than_equal\",\"loc\":[\"body\",\"timeout\"],\"msg\":\"Input should be less than or equal to "
     "3600\",\"ctx\":{\"le\":3600}}]"},
    {"{\"prompt\":\"p\",\"max_budget_usd\":1e999}",
     "[{\"type\":\"finite_number\",\"loc\":[\"body\",\"max_budget_usd\"],"
     "\"msg\":\"Input should be a finite number\"}]"},
    {"{\"prompt\":\"p\",\"max_budget_usd\":-1}", "[{\"type\":\"greater_than_equal\",\"loc\":[\"body\",\"max_budget_"
                                                 "usd\"],\"msg\":\"Input should be greater than or "
                                                 "equal to 0\",\"ctx\":{\"ge\":0.0}}]"},
    {"{\"prompt\":\"p\",\"fork_session\":2,\"allowed_tools\":[\"a\",1],\"extra_agents\":{\"a\\n\":{}}}",
     "[{\"type\":\"string_type\",\"loc\":[\"body\",\"allowed_tools\",1],\"msg\":\"Input should be a valid string\"},"
     "{\"type\":\"bool_parsing\",\"loc\":[\"body\",\"fork_session\"],\"msg\":\"Input should be a valid boolean, unable "
     "to "
     "interpret input\"},"
     "{\"type\":\"value_error\",\"loc\":[\"body\",\"extra_agents\"],\"msg\":\"Value error, Invalid agent name 'a\\n': "
     "must "
     "match [a-zA-Z0-9_-]+\",\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"p\",\"extra_agents\":{\"a\":1,\"b\":[]}}",
     "[{\"type\":\"dict_type\",\"loc\":[\"body\",\"extra_agents\",\"a\"],\"msg\":\"Input should be a valid "
     "dictionary\"},"
     "{\"type\":\"dict_type\",\"loc\":[\"body\",\"extra_agents\",\"b\"],\"msg\":\"Input should be a valid "
     "dictionary\"}]"},
    {"{\"prompt\":\"p\",\"files\":{\"a\\u0000b\":\"\"}}",
     "[{\"type\":\"value_error\",\"loc\":[\"body\",\"files\"],\"msg\":\"Value error, Invalid file path: a\\u0000b\","
     "\"ctx\":{\"error\":{}}}]"},
    {"{\"prompt\":\"\xff\"}", "400"},
    {"{\"prompt\":\"\xed\xa0\x80\"}", "400"},
};

static void test_each_body_gets_its_exact_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bodies); i++) {
        struct query_request request;
        json_t *errors;
        enum query_result result = query_request_parse(bodies[i].body, strlen(bodies[i].body), &request, &errors);
        char *text = errors != NULL ? json_dumps(errors, JSON_COMPACT) : NULL;
        const char *got = result == QUERY_BAD_TEXT ? "400" : text;

        if ((got == NULL) != (bodies[i].errors == NULL) || (got != NULL && strcmp(got, bodies[i].errors) != 0))
            fail_msg("%s\n got    %s\n wanted %s", bodies[i].body, got, bodies[i].errors);
        free(text);
        json_decref(errors);
        query_request_release(&request);
    }
}

/* Parses a body that must be accepted. */
static struct query_request accept_body(const char *body)
{
    struct query_request request;
    json_t *errors;

    assert_int_equal(query_request_parse(body, strlen(body), &request, &errors), QUERY_OK);
    return request;
}

static void test_numbers_are_coerced(void **state)
{
    static const char *const sixties[] = {"60",      "60.0",    "6e1",      "\"60\"",  "\" 60 \"",
                                          "\"+60\"", "\"6_0\"", "\"60.0\"", "\"0060\""};

    (void)state;
    for (size_t i = 0; i < COUNT(sixties); i++) {
        struct query_request request;
        char body[96];

        snprintf(body, sizeof body, "{\"prompt\":\"p\",\"timeout\":%s,\"max_turns\":true}", sixties[i]);
        request = accept_body(body);
        assert_int_equal(request.timeout_s, 60);
        assert_int_equal(request.max_turns, 1);
        query_request_release(&request);
    }
}

static void test_paths_of_files_are_normalised_and_the_last_of_a_kind_wins(void **state)
{
    struct query_request request =
        accept_body("{\"prompt\":\"p\",\"files\":{\"a//b\":\"1\",\"./a/x/../b\":\"2\",\"c/\":"
                    "\"3\",\"..foo\":\"4\",\"...\":\"5\"}}");
    char *files = json_dumps(request.files, JSON_COMPACT);

    (void)state;
    assert_string_equal(files, "{\"a/b\":\"2\",\"c\":\"3\",\"..foo\":\"4\",\"...\":\"5\"}");
    free(files);
    query_request_release(&request);
}

static void test_empty_keys_and_nulls_are_absent(void **state)
{
    struct query_request request =
        accept_body("{\"prompt\":\"p\",\"e2b_api_key\":\"\",\"anthropic_api_key\":null,\"model\":null,\"files\":null}");

    (void)state;
    assert_null(request.e2b_api_key);
    assert_null(request.anthropic_api_key);
    assert_null(request.model);
    assert_int_equal(json_object_size(request.files), 0);
    query_request_release(&request);
}

/* A body of `depth` nested arrays in an unknown field. */
static enum query_result parse_nested(size_t depth)
{
    struct query_request request;
    json_t *errors;
    char *body = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&body, &size);
    enum query_result result;

    fputs("{\"prompt\":\"p\",\"deep\":", out);
    for (size_t i = 1; i < depth; i++)
        fputc('[', out);
    for (size_t i = 1; i < depth; i++)
        fputc(']', out);
    fputs("}", out);
    fclose(out);
    result = query_request_parse(body, size, &request, &errors);
    json_decref(errors);
    query_request_release(&request);
    free(body);
    return result;
}

static void test_nesting_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(parse_nested(400), QUERY_OK);
    assert_int_equal(parse_nested(401), QUERY_BAD_TEXT);
}

static void test_too_many_and_too_large_files_are_refused(void **state)
{
    struct query_request request;
    json_t *errors, *files = json_object(), *body;
    char *text, name[16];
    static char big[10000001];

    (void)state;
    for (int i = 0; i < 21; i++) {
        snprintf(name, sizeof name, "f%d", i);
        json_object_set_new(files, name, json_string(""));
    }
    body = json_pack("{s:s,s:o}", "prompt", "p", "files", files);
    text = json_dumps(body, 0);
    assert_int_equal(query_request_parse(text, strlen(text), &request, &errors), QUERY_BAD_FIELDS);
    assert_string_equal(json_string_value(json_object_get(json_array_get(errors, 0), "msg")),
                        "Value error, Too many files: 21 (max 20)");
    free(text);
    json_decref(errors);
    query_request_release(&request);
    json_object_clear(files);
    memset(big, 'x', sizeof big - 1);
    json_object_set_new(files, "big", json_pack("s+", big, "1"));
    text = json_dumps(body, 0);
    assert_int_equal(query_request_parse(text, strlen(text), &request, &errors), QUERY_BAD_FIELDS);
    assert_string_equal(json_string_value(json_object_get(json_array_get(errors, 0), "msg")),
                        "Value error, Total file size 10,000,001 bytes exceeds 10MB limit");
    free(text);
    json_decref(errors);
    query_request_release(&request);
    json_decref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_body_gets_its_exact_answer),
        cmocka_unit_test(test_numbers_are_coerced),
        cmocka_unit_test(test_paths_of_files_are_normalised_and_the_last_of_a_kind_wins),
        cmocka_unit_test(test_empty_keys_and_nulls_are_absent),
        cmocka_unit_test(test_nesting_is_bounded),
        cmocka_unit_test(test_too_many_and_too_large_files_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
