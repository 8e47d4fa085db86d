/* Targets and peers: the rules of http-api.md 2.2. */
#include "tests/unit/unit.h"
#include "worker/peers.h"
#include "worker/router.h"

static const struct route table[] = {
    {.path = "/"}, {.path = "/runs"}, {.path = "/runs/{id}"}, {.path = "/runs/{id}/cancel"}, {.path = NULL},
};

static const struct {
    const char *target;
    enum router_result result;
    const char *path; /* of the route */
    const char *id, *query;
} targets[] = {
    {"/", ROUTER_FOUND, "/", NULL, NULL},
    {"/?a", ROUTER_FOUND, "/", NULL, "a"},
    {"/runs", ROUTER_FOUND, "/runs", NULL, NULL},
    {"/runs?a=b?c", ROUTER_FOUND, "/runs", NULL, "a=b?c"},
    {"/runs?", ROUTER_FOUND, "/runs", NULL, ""},
    {"/%72uns", ROUTER_FOUND, "/runs", NULL, NULL},
    {"/%2572uns", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs/a1", ROUTER_FOUND, "/runs/{id}", "a1", NULL},
    {"/runs/a%31?q", ROUTER_FOUND, "/runs/{id}", "a%31", "q"},
    {"/runs/a1/cancel", ROUTER_FOUND, "/runs/{id}/cancel", "a1", NULL},
    {"/runs/", ROUTER_SLASH, "/runs", NULL, NULL},
    {"/runs/?a=/", ROUTER_SLASH, "/runs", NULL, "a=/"},
    {"/runs/a1/", ROUTER_SLASH, "/runs/{id}", "a1", NULL},
    {"/runs/a1/cancel/", ROUTER_SLASH, "/runs/{id}/cancel", "a1", NULL},
    {"/runs//", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs//cancel", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"//runs", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"//", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs/a%2Fb", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs/a1%2fcancel", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs%2Fa1", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs/a1/cance", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runs/a1/cancel/x", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/Runs", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/run", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"/runsx", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"http://h/runs?a", ROUTER_FOUND, "/runs", NULL, "a"},
    {"HTTPS://h:1/runs/", ROUTER_SLASH, "/runs", NULL, NULL},
    {"http://h", ROUTER_FOUND, "/", NULL, NULL},
    {"http://h?a", ROUTER_FOUND, "/", NULL, "a"},
    {"http://u:p@[::1]:80/runs", ROUTER_FOUND, "/runs", NULL, NULL},
    {"http:///runs", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"http://h:99999/runs", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"http://[/runs", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"http://%zz/runs", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"*", ROUTER_UNKNOWN, NULL, NULL, NULL},
    {"runs", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"h:443", ROUTER_NO_TARGET, NULL, NULL, NULL},
    {"", ROUTER_NO_TARGET, NULL, NULL, NULL},
};

static void expect_span(const char *target, struct span span, const char *text)
{
    if (text == NULL ? span.bytes != NULL : !span_is(span, text))
        fail_msg("%s: '%.*s' is not '%s'", target, (int)span.length, span.bytes, text);
}

static void test_each_target_finds_its_route(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(targets); i++) {
        struct span target = {targets[i].target, strlen(targets[i].target)};
        struct router_match match;
        enum router_result result = router_match(table, target, &match);

        if (result != targets[i].result)
            fail_msg("%s: result %d", targets[i].target, (int)result);
        if (targets[i].path == NULL)
            continue;
        assert_string_equal(match.route->path, targets[i].path);
        expect_span(targets[i].target, match.id, targets[i].id);
        expect_span(targets[i].target, match.query, targets[i].query);
    }
}

static const struct {
    const char *trusted, *peer;
    bool trust;
} trusts[] = {
    {"127.0.0.1", "127.0.0.1", true},      {"127.0.0.1", "127.0.0.2", false}, {"10.0.0.1, ::1", "::1", true},
    {"10.0.0.1, ::1", "10.0.0.1", true},   {"*", "192.0.2.1", true},          {"", "127.0.0.1", false},
    {"::ffff:10.0.0.1", "10.0.0.1", true}, {"nonsense", "unknown", false},
};

static void test_only_listed_peers_are_trusted(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(trusts); i++) {
        struct peers *peers = peers_new(trusts[i].trusted);

        if (peers_trust(peers, trusts[i].peer) != trusts[i].trust)
            fail_msg("%s with '%s'", trusts[i].peer, trusts[i].trusted);
        peers_free(peers);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_target_finds_its_route),
        cmocka_unit_test(test_only_listed_peers_are_trusted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
