/* The rules of http-api.md 2.4. */
#include "tests/unit/unit.h"
#include "worker/cors.h"

#define METHODS_AND_AGE "Access-Control-Allow-Methods: GET, POST\r\nAccess-Control-Max-Age: 600\r\n"
#define LIST            " https://a.example ,,https://b.example:8443"

static struct span span_of(const char *text)
{
    return (struct span){text, text != NULL ? strlen(text) : 0};
}

static const struct {
    const char *origins;
    const char *origin;
    const char *allowed;
} simple[] = {
    {"", "https://x", "*"},
    {"*", "https://x", "*"},
    {"https://a.example, *", "https://x", "*"},
    {"*", NULL, NULL},
    {LIST, "https://a.example", "https://a.example"},
    {LIST, "https://b.example:8443", "https://b.example:8443"},
    {LIST, "https://b.example", NULL},
    {LIST, "https://A.example", NULL},
    {LIST, "https://a.example.evil", NULL},
    {LIST, "", NULL},
    {LIST, "*", NULL},
    {",", "https://x", NULL},
};

static void test_each_origin_gets_what_the_list_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(simple); i++) {
        struct cors *cors = cors_new(simple[i].origins);
        const char *allowed = cors_allow_origin(cors, span_of(simple[i].origin));

        if ((allowed == NULL) != (simple[i].allowed == NULL) ||
            (allowed != NULL && strcmp(allowed, simple[i].allowed) != 0))
            fail_msg("%s from '%s': %s", simple[i].origin, simple[i].origins, allowed);
        cors_free(cors);
    }
}

static const struct {
    const char *origins, *origin, *method, *headers, *private_network;
    int status;
    const char *body;
    const char *lines;
} preflights[] = {
    {"*", "https://x", "POST", NULL, NULL, 200, "OK", "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE},
    {"*", "https://x", "GET", "x-a, X-B", "false", 200, "OK",
     "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE "Access-Control-Allow-Headers: x-a, X-B\r\n"},
    {LIST, "https://a.example", "POST", NULL, NULL, 200, "OK",
     "Access-Control-Allow-Origin: https://a.example\r\n" METHODS_AND_AGE "Vary: Origin\r\n"},
    {LIST, "https://x", "POST", "a", NULL, 400, "Disallowed CORS origin",
     METHODS_AND_AGE "Access-Control-Allow-Headers: a\r\nVary: Origin\r\n"},
    {"*", "https://x", "DELETE", NULL, NULL, 400, "Disallowed CORS method",
     "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE},
    {"*", "https://x", "get", NULL, NULL, 400, "Disallowed CORS method",
     "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE},
    {"*", "https://x", "GET", NULL, "true", 400, "Disallowed CORS private-network",
     "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE},
    {LIST, "https://x", "PUT", NULL, NULL, 400, "Disallowed CORS origin, method", METHODS_AND_AGE "Vary: Origin\r\n"},
    {LIST, "https://x", "GET", NULL, "true", 400, "Disallowed CORS origin, private-network",
     METHODS_AND_AGE "Vary: Origin\r\n"},
    {"*", "https://x", "PUT", NULL, "true", 400, "Disallowed CORS method, private-network",
     "Access-Control-Allow-Origin: *\r\n" METHODS_AND_AGE},
    {LIST, "https://x", "PUT", NULL, "true", 400, "Disallowed CORS origin, method, private-network",
     METHODS_AND_AGE "Vary: Origin\r\n"},
};

static void test_each_preflight_gets_its_answer(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(preflights); i++) {
        struct cors *cors = cors_new(preflights[i].origins);
        struct evbuffer *lines = evbuffer_new();
        char body[CORS_BODY_MAX_BYTES];
        const struct cors_preflight asked = {.origin = span_of(preflights[i].origin),
                                             .method = span_of(preflights[i].method),
                                             .headers = span_of(preflights[i].headers),
                                             .private_network = span_of(preflights[i].private_network)};

        assert_int_equal(cors_answer_preflight(cors, &asked, lines, body), preflights[i].status);
        assert_string_equal(body, preflights[i].body);
        evbuffer_add(lines, "", 1);
        assert_string_equal((const char *)evbuffer_pullup(lines, -1), preflights[i].lines);
        evbuffer_free(lines);
        cors_free(cors);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_origin_gets_what_the_list_says),
        cmocka_unit_test(test_each_preflight_gets_its_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
