/* The search for sandboxes whose creation was not answered (e2b.md A.6), with the HTTP client replaced. */
#include "tests/unit/unit.h"

#include "common/clock.h"
#include "common/metrics.h"
#include "tests/unit/replaced_http.h"
#include "tests/unit/timers.h"
#include "worker/stray_search.h"

static struct {
    struct event_base *base;
    struct stray_search *search;
    struct e2b_service service;
    const char *next_token;
    uint64_t forgotten;   /* lease */
    char killed[256];     /* ids, each with a blank */
    const char *in_queue; /* whose deletion is under way */
} world;

const char *http_answer_header(const struct http_answer *answer, const char *name)
{
    (void)answer;
    assert_string_equal(name, "X-Next-Token");
    return world.next_token;
}

void kill_queue_add(struct kill_queue *queue, const struct kill_order *order)
{
    size_t used = strlen(world.killed);

    (void)queue;
    assert_ptr_equal(order->service, &world.service);
    assert_string_equal(order->run_id, "run1");
    assert_int_equal(order->expires_ms, 77);
    snprintf(world.killed + used, sizeof world.killed - used, "%s ", order->sandbox_id);
}

bool kill_queue_has(const struct kill_queue *queue, const char *sandbox_id)
{
    (void)queue;
    return strcmp(sandbox_id, world.in_queue) == 0;
}

void kill_queue_forget_lease(struct kill_queue *queue, struct run_lease_name lease)
{
    (void)queue;
    world.forgotten = lease.id;
}

static int set_up(void **state)
{
    (void)state;
    memset(&world, 0, sizeof world);
    memset(&http, 0, sizeof http);
    world.in_queue = "";
    world.base = event_base_new();
    world.search = stray_search_new(NULL, world.base, NULL, "here");
    world.service = (struct e2b_service){.references = 1, .api_url = "http://api", .api_key = "e2b_0123456789"};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    stray_search_free(world.search);
    event_base_free(world.base);
    assert_int_equal(world.service.references, 1);
    return 0;
}

static void look_for_run1_for(const char *own, int64_t ms)
{
    timers_begin();
    stray_search_add(world.search, &(struct stray_order){.service = &world.service,
                                                         .run_id = "run1",
                                                         .own_sandbox_id = own,
                                                         .until_ms = monotonic_ms() + ms,
                                                         .expires_ms = 77,
                                                         .lease = {.id = 9}});
}

static void look_for_run1(const char *own)
{
    look_for_run1_for(own, STRAY_SEARCH_MS);
}

static void listed(int status, const char *body)
{
    const struct http_answer answer = {.outcome = TRANSFER_ANSWERED,
                                       .status = status,
                                       .retry_after_s = -1,
                                       .content_type = "",
                                       .body = body,
                                       .body_length = strlen(body),
                                       .error = ""};

    http.request.on_done(http.request.context, &answer);
}

static void test_it_looks_at_once_after_5_and_after_75_seconds(void **state)
{
    (void)state;
    look_for_run1(NULL);
    assert_string_equal(http.url, "http://api/v2/sandboxes?metadata=request_id%3Drun1%26sandstorm_instance%3Dhere"
                                  "&state=running,paused&limit=100");
    assert_int_equal(stray_search_in_flight(world.search), 1);
    listed(200, "[]");
    assert_wait(fire_shortest_timer(world.base), 5000, 5000);
    listed(503, "<html>");                                      /* a search that fails does not end it */
    assert_wait(fire_shortest_timer(world.base), 75000, 75000); /* since the beginning, which was just now */
    assert_int_equal(world.forgotten, 0);
    listed(200, "not JSON");
    assert_int_equal(world.forgotten, 9);
    assert_int_equal(http.sent, 3);
    assert_null(waiting_timers(world.base).shortest);
    assert_int_equal(world.service.references, 1);
}

static void test_what_is_taken_over_goes_on_and_does_not_begin_anew(void **state)
{
    (void)state;
    look_for_run1_for(NULL, 42000);
    listed(200, "[]");
    assert_wait(fire_shortest_timer(world.base), 5000, 5000);
    listed(200, "[]");
    assert_wait(fire_shortest_timer(world.base), 42000, 42000);
    listed(200, "[]");
    assert_int_equal(world.forgotten, 9);
}

static void test_what_is_taken_over_near_its_end_is_looked_for_once_more(void **state)
{
    (void)state;
    look_for_run1_for(NULL, 3000);
    listed(200, "[]");
    assert_wait(waiting_timers(world.base).shortest_ms, 3000, 3000);
    assert_int_equal(world.forgotten, 0);
}

static void test_what_is_taken_over_after_its_end_is_looked_for_at_once_and_no_more(void **state)
{
    (void)state;
    look_for_run1_for(NULL, -1);
    assert_int_equal(stray_search_in_flight(world.search), 1);
    listed(200, "[]");
    assert_int_equal(world.forgotten, 9);
    assert_int_equal(http.sent, 1);
}

#define SANDBOX(id, run, instance)                                                                                     \
    "{\"sandboxID\":\"" id "\",\"metadata\":{\"request_id\":\"" run "\",\"sandstorm_instance\":\"" instance "\"}}"

static void test_it_deletes_what_is_this_runs_and_nothing_else(void **state)
{
    (void)state;
    look_for_run1("own");
    listed(200, "[" SANDBOX("own", "run1", "here") "," SANDBOX("s1", "run1", "here") "," SANDBOX(
                    "s2", "run2", "here") "," SANDBOX("s3", "run1",
                                                      "there") "," SANDBOX("../s4", "run1",
                                                                           "here") ","
                                                                                   "{\"sandboxID\":\"s5\"},7," SANDBOX(
                                                                                       "s6", "run1", "here") "]");
    assert_string_equal(world.killed, "s1 s6 ");
}

static void test_what_is_being_deleted_is_found_once(void **state)
{
    struct scoreboard *scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 1, .run_history = 1}, NULL);

    (void)state;
    assert_non_null(scoreboard);
    metrics_open(scoreboard, scoreboard_take_slot(scoreboard, 1));
    look_for_run1(NULL);
    listed(200, "[" SANDBOX("s1", "run1", "here") "]");
    assert_int_equal(metrics_total(scoreboard, METRIC_LEAKS_REAPED, 0), 1);
    (void)fire_shortest_timer(world.base);
    world.in_queue = "s1"; /* the service did not let go of it yet */
    listed(200, "[" SANDBOX("s1", "run1", "here") "," SANDBOX("s2", "run1", "here") "]");
    assert_string_equal(world.killed, "s1 s2 ");
    assert_int_equal(metrics_total(scoreboard, METRIC_LEAKS_REAPED, 0), 2);
    metrics_open(NULL, 0);
    scoreboard_free(scoreboard);
}

static void test_it_reads_all_pages(void **state)
{
    (void)state;
    look_for_run1(NULL);
    world.next_token = "a+b=";
    listed(200, "[" SANDBOX("s1", "run1", "here") "]");
    assert_int_equal(http.sent, 2);
    assert_non_null(strstr(http.url, "&nextToken=a%2Bb%3D"));
    world.next_token = NULL;
    listed(200, "[" SANDBOX("s2", "run1", "here") "]");
    assert_string_equal(world.killed, "s1 s2 ");
    assert_int_equal(stray_search_in_flight(world.search), 0);
}

static void test_a_list_without_an_end_is_not_followed_for_ever(void **state)
{
    int sent = 0;

    (void)state;
    look_for_run1(NULL);
    world.next_token = "more";
    while (http.sent > sent) {
        sent = http.sent;
        listed(200, "[" SANDBOX("other", "run2", "here") "]");
    }
    assert_int_equal(sent, 1000);
    assert_wait(fire_shortest_timer(world.base), 5000, 5000); /* it is looked at again, as after any failure */
    assert_int_equal(http.sent, 1001);
    assert_string_equal(world.killed, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_it_reads_all_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_list_without_an_end_is_not_followed_for_ever, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_being_deleted_is_found_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_taken_over_goes_on_and_does_not_begin_anew, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_taken_over_near_its_end_is_looked_for_once_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_taken_over_after_its_end_is_looked_for_at_once_and_no_more, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_it_looks_at_once_after_5_and_after_75_seconds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_it_deletes_what_is_this_runs_and_nothing_else, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
