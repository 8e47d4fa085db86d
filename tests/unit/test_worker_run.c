/*
 * The state machine of one run with everything around it faked: each state meets each cause of an end, and the client
 * sees one terminal event or none (http-api.md section 8), the sandbox is let go once, the slot is freed once.
 */
#include "tests/unit/unit.h"
#include "worker/agent_stream.h"
#include "worker/collection.h"
#include "worker/run.h"

/* --- the world of one run ----------------------------------------------------------------------------- */

static struct world {
    struct event_base *base;
    struct run_host host;
    struct project_store *store;
    struct environment *environment;
    struct scoreboard *scoreboard;
    struct settings settings;
    struct e2b_service service;
    struct e2b_create_request create;
    void (*late)(void *, const struct e2b_result *, struct e2b_sandbox *);
    void *late_context;
    void (*uploaded)(void *context, const struct e2b_result *result);
    void *upload_context;
    struct agent_stream_request agent;
    struct collection_handlers collection;
    struct event_stream_handlers client;
    bool creating, uploading, streaming, collecting; /* what is under way */
    bool open;                                       /* the client's stream */
    bool stopped;                                    /* the agent's stream, before its process ended */
    int kills, kill_signals, searches, ends, aborts;
    char events[2048]; /* what the client saw, one a line */
} world;

static int handle; /* what the fakes return a pointer to */

/* --- fakes --------------------------------------------------------------------------------------------- */

struct e2b_service *e2b_service_ref(struct e2b_service *service)
{
    service->references++;
    return service;
}

void e2b_service_unref(struct e2b_service *service)
{
    service->references--;
}

struct e2b_call *e2b_create(const struct e2b_context *e2b, const struct e2b_create_request *request)
{
    (void)e2b;
    world.create = *request;
    world.creating = true;
    return (struct e2b_call *)&handle;
}

void e2b_create_abandon(struct e2b_call *call,
                        void (*on_created)(void *, const struct e2b_result *, struct e2b_sandbox *), void *context)
{
    (void)call;
    world.late = on_created;
    world.late_context = context;
}

void e2b_sandbox_free(struct e2b_sandbox *sandbox)
{
    free(sandbox);
}

struct e2b_upload *e2b_upload(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                              const struct e2b_file *files, size_t count,
                              void (*on_uploaded)(void *context, const struct e2b_result *result), void *context)
{
    (void)e2b;
    (void)sandbox;
    assert_string_equal(files[count - 1].path, AGENT_CONFIG_PATH);
    world.uploaded = on_uploaded;
    world.upload_context = context;
    world.uploading = true;
    return (struct e2b_upload *)&handle;
}

void e2b_upload_cancel(struct e2b_upload *upload)
{
    if (upload != NULL)
        world.uploading = false;
}

void e2b_kill_process(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox, int64_t pid)
{
    (void)e2b;
    (void)sandbox;
    assert_int_equal(pid, 77);
    world.kill_signals++;
}

struct agent_stream *agent_stream_open(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                       const struct agent_stream_request *request)
{
    (void)e2b;
    (void)sandbox;
    world.agent = *request;
    world.streaming = true;
    return (struct agent_stream *)&handle;
}

void agent_stream_cancel(struct agent_stream *stream)
{
    if (stream != NULL)
        world.streaming = false;
}

void agent_stream_pause(struct agent_stream *stream)
{
    (void)stream;
}

void agent_stream_resume(struct agent_stream *stream)
{
    (void)stream;
}

bool agent_stream_stopped(const struct agent_stream *stream)
{
    (void)stream;
    return world.stopped;
}

struct collection *collection_start(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                    const struct collection_limits *limits, const struct input_files *inputs,
                                    const struct collection_handlers *handlers)
{
    (void)e2b;
    (void)sandbox;
    (void)limits;
    assert_non_null(inputs);
    world.collection = *handlers;
    world.collecting = true;
    return (struct collection *)&handle;
}

void collection_cancel(struct collection *collection)
{
    if (collection != NULL)
        world.collecting = false;
}

void kill_queue_add(struct kill_queue *queue, const struct kill_order *order)
{
    (void)queue;
    assert_string_equal(order->sandbox_id, "i1");
    run_lease_hold(world.scoreboard, order->lease, RUN_LEASE_DELETING, order->sandbox_id, order->expires_ms);
    world.kills++;
}

void stray_search_add(struct stray_search *search, const struct stray_order *order)
{
    (void)search;
    (void)order;
    world.searches++;
}

struct event_stream *event_stream_open(struct exchange *exchange, const char *run_id,
                                       const struct event_stream_handlers *handlers)
{
    (void)exchange;
    assert_int_equal(strlen(run_id), RUN_ID_DIGITS);
    world.client = *handlers;
    world.open = true;
    return (struct event_stream *)&handle;
}

void event_stream_put_line(struct event_stream *stream, const char *line, size_t length)
{
    size_t used = strlen(world.events);

    (void)stream;
    assert_true(world.open);
    snprintf(world.events + used, sizeof world.events - used, "%.*s\n", (int)length, line);
}

/* Of the server's own events only the code matters here. */
void event_stream_put_json(struct event_stream *stream, json_t *event)
{
    const char *code = json_string_value(json_object_get(event, "code"));

    event_stream_put_line(stream, code != NULL ? code : "event", strlen(code != NULL ? code : "event"));
    json_decref(event);
}

void event_stream_put_source(struct event_stream *stream, const struct event_source *source)
{
    event_stream_put_line(stream, "file", 4);
    source->free(source->state);
}

void event_stream_flush(struct event_stream *stream)
{
    (void)stream;
}

bool event_stream_full(struct event_stream *stream)
{
    (void)stream;
    return false;
}

void event_stream_end(struct event_stream *stream)
{
    (void)stream;
    assert_true(world.open);
    world.open = false;
    world.ends++;
}

void event_stream_abort(struct event_stream *stream)
{
    (void)stream;
    world.aborts++;
}

struct access_entry *server_access(const struct exchange *exchange)
{
    (void)exchange;
    return NULL;
}

void server_reply_internal(struct exchange *exchange, const char *reason)
{
    (void)exchange;
    fail_msg("unexpected reply: %s", reason);
}

/* --- driving it ---------------------------------------------------------------------------------------- */

static const struct e2b_result worked = {.error = RUN_ERROR_NONE, .message = ""};
static const char result_line[] = "{\"type\":\"result\",\"subtype\":\"success\"}\n";

static void on_progress(void *context)
{
    (void)context;
}

/* Lets deferred work happen. */
static void turn(void)
{
    event_base_loop(world.base, EVLOOP_NONBLOCK);
}

static struct e2b_sandbox *new_sandbox(void)
{
    struct e2b_sandbox *sandbox = calloc(1, sizeof *sandbox);

    snprintf(sandbox->id, sizeof sandbox->id, "i1");
    return sandbox;
}

static void created(void)
{
    world.creating = false;
    world.create.on_created(world.create.context, &worked, new_sandbox());
}

static void uploaded(void)
{
    world.uploading = false;
    world.uploaded(world.upload_context, &worked);
}

static void started(void)
{
    world.agent.handlers.on_start(world.agent.handlers.context, 77);
}

static void prints(const char *text)
{
    world.agent.handlers.on_output(world.agent.handlers.context, false, text, strlen(text));
    world.agent.handlers.on_output_end(world.agent.handlers.context);
}

static void exits(int code)
{
    world.agent.handlers.on_exit(world.agent.handlers.context, code, "exit status");
}

static void collected(void)
{
    world.collecting = false;
    world.collection.on_done(world.collection.context, false);
}

enum stage {
    CREATING,
    UPLOADING,
    STARTING,
    STREAMING,
    AFTER_RESULT, /* the terminal line was seen, the process still runs */
    COLLECTING,   /* of an agent that ended without a result */
    STAGES
};

/* A fresh run, brought to a stage. */
static void reach(enum stage stage)
{
    struct run_order order = {
        .request = {.files = json_object(), .prompt = json_string("p"), .timeout_s = 60, .max_budget_usd = -1},
        .view = project_dir_look(world.host.project_dir),
        .service = e2b_service_ref(&world.service),
    };
    struct exchange exchange = {.context = NULL};

    world.events[0] = '\0';
    assert_true(scoreboard_admit_run(world.scoreboard, 0));
    run_start(&world.host, &exchange, &order);
    if (stage > CREATING)
        created();
    if (stage > UPLOADING)
        uploaded();
    if (stage > STARTING)
        started();
    if (stage == AFTER_RESULT)
        prints(result_line);
    if (stage == COLLECTING)
        exits(3);
}

/* What must hold after every end, whatever it was. */
static void check_end(enum stage stage, const char *events)
{
    turn();
    if (strcmp(world.events, events) != 0)
        fail_msg("stage %d: the client saw:\n%swanted:\n%s", (int)stage, world.events, events);
    assert_int_equal(world.host.run_count, 0);
    assert_int_equal(atomic_load(&world.scoreboard->live_runs), 0);
    assert_false(world.uploading || world.streaming || world.collecting || world.open);
    if (stage == CREATING && world.late != NULL) {
        /* The create was not cut: what it brings is deleted. */
        assert_int_equal(world.kills, 0);
        assert_int_equal(world.host.create_count, 1);
        world.late(world.late_context, &worked, new_sandbox());
        world.late = NULL;
    }
    assert_int_equal(world.host.create_count, 0);
    assert_int_equal(world.kills, 1);
    assert_int_equal(world.service.references, 1);
    world.kills = world.ends = world.aborts = 0;
}

/* What the world points to lives as long as it does. */
static char no_text[] = "";
static char template_name[] = "t";
static char agent_command[] = "c";

static int set_up(void **state)
{
    struct environment_file *file;

    (void)state;
    memset(&world, 0, sizeof world);
    world.base = event_base_new();
    world.scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 4, .run_history = 4}, NULL);
    world.service = (struct e2b_service){.references = 1, .api_url = no_text, .api_key = no_text};
    world.store = project_store_new();
    file = environment_file_new("/proc/self/fdinfo");
    world.environment = environment_current(file);
    environment_file_free(file);
    world.settings = (struct settings){
        .timeout_ms = 600000, .line_limit_bytes = 1000, .template_name = template_name, .agent_command = agent_command};
    world.host = (struct run_host){.base = world.base,
                                   .settings = &world.settings,
                                   .scoreboard = world.scoreboard,
                                   .instance = "unit",
                                   .project_dir =
                                       project_dir_new(world.base, "/proc/self/fdinfo", world.store, world.environment),
                                   .on_progress = on_progress};
    TAILQ_INIT(&world.host.runs);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    turn();
    project_dir_free(world.host.project_dir);
    project_store_free(world.store);
    environment_unref(world.environment);
    event_base_free(world.base);
    scoreboard_free(world.scoreboard);
    return 0;
}

/* --- promises ------------------------------------------------------------------------------------------ */

static void test_a_run_that_succeeds_ends_with_its_own_line(void **state)
{
    (void)state;
    reach(STREAMING);
    prints("{\"type\":\"assistant\"}\n  \nnot json\n{\"type\":\"result\",\"subtype\":\"success\"}");
    exits(0);
    world.collection.on_file(world.collection.context, "out.txt", spool_new(false));
    collected();
    assert_int_equal(world.ends, 1);
    check_end(STREAMING, "{\"type\":\"assistant\"}\nnot json\n{\"type\":\"result\",\"subtype\":\"success\"}\nfile\n");
}

static void test_a_client_that_leaves_ends_the_run_in_every_state_without_an_event(void **state)
{
    (void)state;
    for (enum stage stage = CREATING; stage < STAGES; stage++) {
        reach(stage);
        world.events[0] = '\0';
        world.open = false;
        world.client.on_gone(world.client.context, "gone");
        assert_int_equal(world.ends, 0);
        check_end(stage, "");
    }
}

static void test_a_stop_ends_the_run_in_every_state_with_one_event(void **state)
{
    (void)state;
    for (enum stage stage = CREATING; stage < STAGES; stage++) {
        reach(stage);
        world.events[0] = '\0';
        run_end_all(&world.host);
        /* After a terminal line there is no second one. */
        check_end(stage, stage == AFTER_RESULT ? "" : "server_shutdown\n");
    }
}

static void test_an_agent_that_ends_without_a_result_is_told(void **state)
{
    (void)state;
    reach(COLLECTING);
    assert_true(world.open);
    collected();
    check_end(COLLECTING, "agent_exit\n");
}

static void test_a_failure_before_the_agent_gives_its_code(void **state)
{
    const struct e2b_result refused = {.error = RUN_ERROR_UPLOAD_FAILED, .message = "no"};
    const struct e2b_result no_sandbox = {.error = RUN_ERROR_E2B_AUTH, .message = "401"};

    (void)state;
    reach(CREATING);
    world.create.on_created(world.create.context, &no_sandbox, NULL);
    turn();
    assert_string_equal(world.events, "e2b_auth\n");
    assert_int_equal(world.kills, 0); /* there is nothing to delete */
    assert_int_equal(world.host.run_count, 0);
    reach(UPLOADING);
    world.uploading = false;
    world.uploaded(world.upload_context, &refused);
    check_end(UPLOADING, "upload_failed\n");
}

static void test_a_create_of_unknown_fate_is_searched_for(void **state)
{
    const struct e2b_result cut = {.error = RUN_ERROR_SANDBOX_CREATE_FAILED, .message = "cut", .fate_unknown = true};

    (void)state;
    reach(CREATING);
    world.create.on_created(world.create.context, &cut, NULL);
    turn();
    assert_string_equal(world.events, "sandbox_create_failed\n");
    assert_int_equal(world.searches, 1);
}

static void test_a_lost_stream_is_told_unless_the_terminal_line_came_before(void **state)
{
    (void)state;
    reach(STREAMING);
    world.streaming = false;
    world.agent.handlers.on_lost(world.agent.handlers.context, RUN_ERROR_SANDBOX_LOST, "lost");
    check_end(STREAMING, "sandbox_lost\n");
    reach(AFTER_RESULT);
    world.events[0] = '\0';
    world.agent.handlers.on_lost(world.agent.handlers.context, RUN_ERROR_SANDBOX_LOST, "lost");
    check_end(AFTER_RESULT, "");
}

static void test_a_line_over_the_limit_ends_the_run(void **state)
{
    static char line[2000];

    (void)state;
    memset(line, 'x', sizeof line - 1);
    reach(STREAMING);
    prints(line);
    assert_false(world.streaming);
    prints(result_line); /* what still comes is not forwarded */
    check_end(STREAMING, "line_too_long\n");
}

/* The deadline of a run whose time is up at once. */
static void expect_deadline(enum stage stage, const char *events)
{
    world.settings.timeout_ms = 0;
    reach(stage);
    event_base_loop(world.base, EVLOOP_ONCE);
    if (world.collecting)
        collected();
    check_end(stage, events);
    world.settings.timeout_ms = 600000;
}

static void test_the_deadline_ends_a_run_in_every_state(void **state)
{
    (void)state;
    expect_deadline(CREATING, "timeout_capped\nrun_timeout\n");
    expect_deadline(UPLOADING, "timeout_capped\nrun_timeout\n");
    expect_deadline(STARTING, "timeout_capped\nrun_timeout\n");
    assert_int_equal(world.kill_signals, 0);
    expect_deadline(STREAMING, "timeout_capped\nrun_timeout\n");
    assert_int_equal(world.kill_signals, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_run_that_succeeds_ends_with_its_own_line, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_client_that_leaves_ends_the_run_in_every_state_without_an_event, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_stop_ends_the_run_in_every_state_with_one_event, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_an_agent_that_ends_without_a_result_is_told, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_failure_before_the_agent_gives_its_code, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_create_of_unknown_fate_is_searched_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_lost_stream_is_told_unless_the_terminal_line_came_before, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(test_a_line_over_the_limit_ends_the_run, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_deadline_ends_a_run_in_every_state, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
