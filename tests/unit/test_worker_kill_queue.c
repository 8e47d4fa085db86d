/* The kill column of e2b.md A.4, with the HTTP client replaced: what is sent again, when, and when it is given up. */
#include "tests/unit/unit.h"

#include "common/clock.h"
#include "common/scoreboard.h"
#include "tests/unit/replaced_http.h"
#include "tests/unit/timers.h"
#include "worker/kill_queue.h"

#define TTL_MS       3600000
#define LAST_CALL_MS 60000 /* after the end of the time to live */

/* --- the world ----------------------------------------------------------------------------------------- */

static struct {
    struct event_base *base;
    struct kill_queue *queue;
    struct scoreboard *scoreboard;
    int slot;
    struct run_lease_name lease; /* of the next sandbox */
    struct e2b_service service;
    int empty;
} world;

struct http_transfer *e2b_api_send(struct http_client *client, const struct e2b_service *service, const char *path,
                                   struct http_request *request)
{
    struct http_transfer *transfer;
    char *url = NULL;

    assert_true(asprintf(&url, "%s%s", service->api_url, path) >= 0);
    request->url = url;
    transfer = http_client_send(client, request);
    free(url);
    return transfer;
}

struct e2b_service *e2b_service_ref(struct e2b_service *service)
{
    service->references++;
    return service;
}

void e2b_service_unref(struct e2b_service *service)
{
    service->references--;
}

static void on_empty(void *context)
{
    (void)context;
    world.empty++;
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    memset(&http, 0, sizeof http);
    world.base = event_base_new();
    world.scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 1, .run_history = 1}, NULL);
    world.slot = scoreboard_take_slot(world.scoreboard, 1);
    world.queue = kill_queue_new(NULL, world.base, world.scoreboard);
    world.service = (struct e2b_service){.references = 1, .api_url = "http://api", .api_key = "e2b_0123456789"};
    kill_queue_on_empty(world.queue, on_empty, NULL);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    kill_queue_free(world.queue);
    scoreboard_free(world.scoreboard);
    event_base_free(world.base);
    assert_int_equal(world.service.references, 1);
    return 0;
}

static void add(int64_t left_to_live_ms)
{
    kill_queue_add(world.queue, &(struct kill_order){.service = &world.service,
                                                     .sandbox_id = "i1",
                                                     .run_id = "0123456789abcdef",
                                                     .expires_ms = monotonic_ms() + left_to_live_ms,
                                                     .lease = world.lease});
}

static void answered(enum transfer_outcome outcome, int status, int64_t retry_after_s, const char *body)
{
    const struct http_answer answer = {.outcome = outcome,
                                       .status = status,
                                       .retry_after_s = retry_after_s,
                                       .content_type = "",
                                       .body = body,
                                       .body_length = strlen(body),
                                       .error = "why"};

    http.request.on_done(http.request.context, &answer);
}

/* --- the rows ------------------------------------------------------------------------------------------ */

#define JSON(code, message) "{\"code\":" #code ",\"message\":\"" message "\"}"
#define NEVER               (-1)

/* The wait before the second request, or NEVER; then left says whether the sandbox is given up to its time to live. */
static const struct row {
    enum transfer_outcome outcome;
    int status;
    int64_t retry_after_s;
    const char *body;
    int64_t least_ms, most_ms;
} rows[] = {
    {TRANSFER_ANSWERED, 204, -1, "", NEVER, NEVER},
    {TRANSFER_ANSWERED, 200, -1, "<html>", NEVER, NEVER},
    {TRANSFER_ANSWER_TOO_LARGE, 200, -1, "", NEVER, NEVER},
    {TRANSFER_ANSWERED, 404, -1, JSON(404, "Sandbox doesn't exist"), NEVER, NEVER},
    {TRANSFER_ANSWERED, 400, -1, "", NEVER, NEVER},
    {TRANSFER_ANSWERED, 410, -1, "", NEVER, NEVER},
    {TRANSFER_ANSWERED, 507, -1, "", NEVER, NEVER},
    {TRANSFER_ANSWERED, 404, -1, "<html>", 125, 250},
    {TRANSFER_ANSWERED, 302, -1, "", 125, 250},
    {TRANSFER_ANSWERED, 401, -1, "", 125, 250},
    {TRANSFER_ANSWERED, 403, -1, "", 125, 250},
    {TRANSFER_ANSWERED, 409, -1, "", 1000, 1000},
    {TRANSFER_ANSWERED, 429, 7, "", 7000, 7000},
    {TRANSFER_ANSWERED, 429, -1, "", 125, 250},
    {TRANSFER_ANSWERED, 500, -1, JSON(500, "x"), 125, 250},
    {TRANSFER_ANSWERED, 500, -1, "x", 125, 250},
    {TRANSFER_ANSWERED, 502, -1, "x", 125, 250},
    {TRANSFER_ANSWERED, 503, -1, "x", 125, 250},
    {TRANSFER_ANSWERED, 504, -1, "x", 125, 250},
    {TRANSFER_ANSWER_TOO_LARGE, 500, -1, "", 125, 250},
    {TRANSFER_NOT_CONNECTED, 0, -1, "", 125, 250},
    {TRANSFER_TLS_FAILED, 0, -1, "", 125, 250},
    {TRANSFER_TLS_UNTRUSTED, 0, -1, "", 30000, 30000},
    {TRANSFER_TIMED_OUT, 0, -1, "", 125, 250},
    {TRANSFER_CUT, 0, -1, "", 125, 250},
    {TRANSFER_CUT, 200, -1, "", 125, 250},
    {TRANSFER_INTERNAL, 0, -1, "", 125, 250},
};

static void check_row(const struct row *row)
{
    int sent = http.sent, empty = world.empty;
    int64_t left_ms;

    timers_begin();
    add(TTL_MS);
    answered(row->outcome, row->status, row->retry_after_s, row->body);
    if (row->least_ms == NEVER) {
        assert_int_equal(kill_queue_length(world.queue), 0);
        assert_int_equal(http.sent, sent + 1);
    } else {
        assert_int_equal(kill_queue_failed(world.queue), 1);
        left_ms = fire_shortest_timer(world.base);
        assert_wait(left_ms, row->least_ms, row->most_ms);
        assert_int_equal(http.sent, sent + 2);
        answered(TRANSFER_ANSWERED, 204, -1, "");
    }
    assert_int_equal(kill_queue_length(world.queue), 0);
    assert_int_equal(world.empty, empty + 1);
    assert_null(waiting_timers(world.base).shortest);
}

static void test_each_answer_has_its_action(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(rows); i++)
        check_row(&rows[i]);
}

static void test_the_request(void **state)
{
    (void)state;
    add(TTL_MS);
    assert_string_equal(http.request.method, "DELETE");
    assert_string_equal(http.url, "http://api/sandboxes/i1");
    assert_int_equal(http.request.total_timeout_ms, 30000);
}

static void test_a_refused_key_gets_three_tries(void **state)
{
    (void)state;
    add(TTL_MS);
    for (int tries = 1; tries < 3; tries++) {
        answered(TRANSFER_ANSWERED, 401, -1, "");
        fire_shortest_timer(world.base);
    }
    answered(TRANSFER_ANSWERED, 401, -1, "");
    assert_int_equal(http.sent, 3);
    assert_int_equal(kill_queue_length(world.queue), 0);
}

static void test_the_waits_double_up_to_half_a_minute(void **state)
{
    int64_t ceiling_ms = 250;

    (void)state;
    add(TTL_MS);
    for (int tries = 1; tries < 12; tries++) {
        timers_begin();
        answered(TRANSFER_CUT, 0, -1, "");
        assert_wait(fire_shortest_timer(world.base), ceiling_ms / 2, ceiling_ms);
        ceiling_ms = ceiling_ms * 2 < 30000 ? ceiling_ms * 2 : 30000;
    }
    assert_int_equal(http.sent, 12);
}

static void test_a_minute_after_its_end_of_life_a_sandbox_is_given_up(void **state)
{
    (void)state;
    add(-LAST_CALL_MS + 10000);
    answered(TRANSFER_CUT, 0, -1, "");
    assert_int_equal(kill_queue_length(world.queue), 1);
    fire_shortest_timer(world.base);
    answered(TRANSFER_ANSWERED, 429, 11, ""); /* longer than is left */
    assert_int_equal(kill_queue_length(world.queue), 0);
    assert_int_equal(http.sent, 2);
}

/* The lease of a new run, which a kill is to hold. */
static unsigned leases(void)
{
    return run_table_count_leases(world.scoreboard, atomic_load(&world.scoreboard->slots[world.slot].serial));
}

static void test_a_lease_is_held_until_the_sandbox_is_gone(void **state)
{
    struct run_entry entry;

    (void)state;
    assert_true(run_entry_take(&entry, world.scoreboard, atomic_load(&world.scoreboard->slots[world.slot].serial), 5));
    run_entry_publish(&entry);
    world.lease = run_entry_lease_name(&entry);
    add(TTL_MS);
    assert_int_equal(leases(), 1);
    answered(TRANSFER_CUT, 0, -1, "");
    assert_int_equal(leases(), 1);
    fire_shortest_timer(world.base);
    answered(TRANSFER_ANSWERED, 204, -1, "");
    assert_int_equal(leases(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_lease_is_held_until_the_sandbox_is_gone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_each_answer_has_its_action, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_refused_key_gets_three_tries, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_waits_double_up_to_half_a_minute, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_minute_after_its_end_of_life_a_sandbox_is_given_up, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
