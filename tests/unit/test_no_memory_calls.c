/*
 * What is asked of the sandbox service: each request for memory refused in turn. An operation that cannot begin says so
 * and leaves nothing; nothing is sent, as the loop never runs.
 */
#include "tests/unit/failing_memory.h"

#include "common/clock.h"
#include "worker/agent_stream.h"
#include "worker/collection.h"
#include "worker/http_client.h"
#include "worker/input_files.h"
#include "worker/memory_watch.h"
#include "worker/recovery.h"
#include "worker/run.h"
#include "worker/sandbox_list.h"
#include "worker/service_probe.h"
#include "worker/stray_search.h"
#include "worker/template_install.h"

#include <event2/event.h>

static struct {
    struct event_base *base;
    struct e2b_context e2b;
    struct e2b_service service;
    struct e2b_sandbox sandbox;
    struct environment *environment;
    struct scoreboard *scoreboard;
    struct settings settings;
    struct run_host host;
    json_t *env;
} world;

/* --- services ------------------------------------------------------------------------------------------- */

static bool make_cloud(void)
{
    struct e2b_service *service = e2b_service_cloud(world.environment, "e2b_0123456789");

    e2b_service_unref(service);
    return service != NULL;
}

static bool make_local(void)
{
    struct e2b_service *service = e2b_service_local("/run/x.sock");

    e2b_service_unref(service);
    return service != NULL;
}

static void test_a_service(void **state)
{
    (void)state;
    memory_sweep("e2b_service_cloud", make_cloud);
    memory_sweep("e2b_service_local", make_local);
}

/* --- calls ---------------------------------------------------------------------------------------------- */

static void on_created(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox)
{
    (void)context;
    (void)result;
    (void)sandbox;
    fail_msg("nothing was sent");
}

static bool begin_create(void)
{
    const struct e2b_create_request request = {.template_id = "t",
                                               .timeout_s = 60,
                                               .env = world.env,
                                               .run_id = "run1",
                                               .instance = "here",
                                               .retry_timeout_ms = 1000,
                                               .on_created = on_created};
    struct e2b_call *call = e2b_create(&world.e2b, &request);

    if (call != NULL)
        e2b_call_cancel(call);
    return call != NULL;
}

static void on_result(void *context, const struct e2b_result *result)
{
    (void)context;
    (void)result;
    fail_msg("nothing was sent");
}

static bool begin_upload(void)
{
    const struct e2b_file files[] = {{"/home/user/a", "one", 3}, {"/home/user/b", "two", 3}};
    struct e2b_upload *upload = e2b_upload(&world.e2b, &world.sandbox, files, COUNT(files), on_result, NULL);

    if (upload != NULL)
        e2b_upload_cancel(upload);
    return upload != NULL;
}

static void on_bytes(void *context, const char *bytes, size_t length)
{
    (void)context;
    (void)bytes;
    (void)length;
}

static bool begin_read(void)
{
    struct e2b_call *call =
        e2b_read(&world.e2b, &world.sandbox,
                 &(struct e2b_read_request){
                     .path = "/home/user/a b", .limit_bytes = 10, .on_bytes = on_bytes, .on_read = on_result});

    if (call != NULL)
        e2b_call_cancel(call);
    return call != NULL;
}

static void on_probed(void *context, bool gone)
{
    (void)context;
    (void)gone;
}

static bool begin_probe(void)
{
    struct e2b_call *call = e2b_probe(&world.e2b, &world.sandbox, on_probed, NULL);

    if (call != NULL)
        e2b_call_cancel(call);
    return call != NULL;
}

static void test_calls(void **state)
{
    (void)state;
    memory_sweep("e2b_create", begin_create);
    memory_sweep("e2b_upload", begin_upload);
    memory_sweep("e2b_read", begin_read);
    memory_sweep("e2b_probe", begin_probe);
}

/* --- what is made of calls ------------------------------------------------------------------------------ */

static bool begin_agent(void)
{
    struct agent_stream *stream = agent_stream_open(
        &world.e2b, &world.sandbox,
        &(struct agent_stream_request){.command = "node 'x'", .start_timeout_ms = 1000, .idle_timeout_ms = 1000});

    if (stream != NULL)
        agent_stream_cancel(stream);
    return stream != NULL;
}

static bool begin_collection(void)
{
    json_t *files = json_object();
    struct input_files *inputs = files != NULL ? input_files_new(files) : NULL;
    struct collection *collection = NULL;

    if (inputs != NULL)
        collection = collection_start(&world.e2b, &world.sandbox,
                                      &(struct collection_limits){.file_bytes = 10, .total_timeout_ms = 1000}, inputs,
                                      &(struct collection_handlers){.context = NULL});
    if (collection != NULL)
        collection_cancel(collection);
    input_files_free(inputs);
    json_decref(files);
    return collection != NULL;
}

static bool begin_install(void)
{
    struct template_install *install = template_install_start(&world.e2b, &world.sandbox, "1.0", on_result, NULL);

    if (install != NULL)
        template_install_cancel(install);
    return install != NULL;
}

static bool begin_list(void)
{
    struct sandbox_list *list = sandbox_list_start(world.e2b.http, &world.service, "here", "run1",
                                                   &(struct sandbox_list_handlers){.context = NULL});

    if (list != NULL)
        sandbox_list_cancel(list);
    return list != NULL;
}

static void test_what_is_made_of_calls(void **state)
{
    (void)state;
    memory_sweep("agent_stream_open", begin_agent);
    memory_sweep("collection_start", begin_collection);
    memory_sweep("template_install_start", begin_install);
    memory_sweep("sandbox_list_start", begin_list);
}

/* --- what a worker has once ----------------------------------------------------------------------------- */

static bool make_client(void)
{
    struct http_client *client = http_client_new(world.base, &(struct http_client_options){.ca_file = "", .proxy = ""});

    http_client_free(client);
    return client != NULL;
}

static bool make_queue(void)
{
    struct kill_queue *queue = kill_queue_new(world.e2b.http, world.base, world.scoreboard);

    kill_queue_free(queue);
    return queue != NULL;
}

/* What cannot be queued, or sent, is lost to the log and to its time to live, and nothing is left of it. */
static bool queue_a_deletion(void)
{
    struct kill_queue *queue = kill_queue_new(world.e2b.http, world.base, world.scoreboard);

    if (queue != NULL)
        kill_queue_add(queue, &(struct kill_order){.service = &world.service,
                                                   .sandbox_id = "i1",
                                                   .run_id = "run1",
                                                   .expires_ms = monotonic_ms() + 60000});
    kill_queue_free(queue);
    return world.service.references == 1;
}

static bool make_search(void)
{
    struct stray_search *search = stray_search_new(world.e2b.http, world.base, NULL, "here");

    stray_search_free(search);
    return search != NULL;
}

static bool look_for_a_stray(void)
{
    struct stray_search *search = stray_search_new(world.e2b.http, world.base, NULL, "here");

    if (search != NULL)
        stray_search_add(
            search,
            &(struct stray_order){.service = &world.service, .run_id = "run1", .expires_ms = monotonic_ms() + 60000});
    stray_search_free(search);
    return world.service.references == 1;
}

static bool make_recovery(void)
{
    struct recovery *recovery = recovery_new(&world.host, NULL, world.environment);

    recovery_free(recovery);
    return recovery != NULL;
}

static bool make_probe(void)
{
    struct service_probe *probe = service_probe_new(world.base, world.e2b.http, world.scoreboard);

    service_probe_free(probe);
    return probe != NULL;
}

static void test_what_a_worker_has_once(void **state)
{
    (void)state;
    memory_sweep("http_client_new", make_client);
    memory_sweep("kill_queue_new", make_queue);
    memory_survive("kill_queue_add", queue_a_deletion);
    memory_sweep("stray_search_new", make_search);
    memory_survive("stray_search_add", look_for_a_stray);
    memory_sweep("recovery_new", make_recovery);
    memory_sweep("service_probe_new", make_probe);
}

static void ignore_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

/* libevent's heap of timers does not shrink: what is looked at here is not its growth. */
static void make_room_for_timers(void)
{
    struct event *timers[32];

    for (size_t i = 0; i < COUNT(timers); i++) {
        timers[i] = evtimer_new(world.base, ignore_timer, NULL);
        event_add(timers[i], &(struct timeval){.tv_sec = 1000});
    }
    for (size_t i = 0; i < COUNT(timers); i++)
        event_free(timers[i]);
}

static int set_up(void **state)
{
    struct environment_file *file = environment_file_new("/proc/self/fdinfo");

    (void)state;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    world.environment = environment_current(file);
    environment_file_free(file);
    world.base = event_base_new();
    world.scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 2, .run_history = 2}, NULL);
    world.service = (struct e2b_service){.references = 1,
                                         .api_url = "http://127.0.0.1:1",
                                         .sandbox_url = "http://127.0.0.1:1",
                                         .domain = "",
                                         .api_key = "e2b_0123456789"};
    world.sandbox = (struct e2b_sandbox){.id = "i1", .access_token = "token", .base_url = "http://127.0.0.1:1"};
    world.settings = (struct settings){.template_name = "t", .create_retry_timeout_ms = 1000};
    world.e2b = (struct e2b_context){.base = world.base, .service = &world.service};
    world.e2b.http = http_client_new(world.base, &(struct http_client_options){.ca_file = "", .proxy = ""});
    world.host = (struct run_host){.base = world.base,
                                   .http = world.e2b.http,
                                   .settings = &world.settings,
                                   .scoreboard = world.scoreboard,
                                   .instance = "here"};
    make_room_for_timers();
    world.env = json_pack("{s:s}", "ANTHROPIC_API_KEY", "key");
    return world.base == NULL || world.scoreboard == NULL || world.e2b.http == NULL || world.env == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    json_decref(world.env);
    http_client_free(world.e2b.http);
    scoreboard_free(world.scoreboard);
    event_base_free(world.base);
    environment_unref(world.environment);
    curl_global_cleanup();
    return world.service.references != 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_service),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_what_is_made_of_calls),
        cmocka_unit_test(test_what_a_worker_has_once),
    };

    memory_watch_start();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
