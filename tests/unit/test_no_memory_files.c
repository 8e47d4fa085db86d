/*
 * Files an agent left behind: each request for memory refused in turn. All files come back, or the run is told that
 * some do not. The sandbox is faked.
 */
#include "tests/unit/failing_memory.h"

#include "worker/agent_stream.h"
#include "worker/collection.h"
#include "worker/memory_watch.h"

static const char first[] = "a.txt\t4\0b", rest[] = ".txt\t4\0c.txt\t4\0";

static struct {
    struct e2b_context e2b;
    struct input_files *inputs;
    struct event *place; /* libevent has room for timers from its first one on: what it asks for is not tried here */
    struct agent_stream_request listing;
    struct e2b_read_request read;
    bool reading;
    char files[64]; /* the paths that came back, each with a blank behind it */
    bool done, incomplete;
} world;

static int handle; /* what the fakes return a pointer to */

/* --- the sandbox ------------------------------------------------------------------------------------------ */

struct agent_stream *agent_stream_open(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                       const struct agent_stream_request *request)
{
    (void)e2b;
    (void)sandbox;
    world.listing = *request;
    return (struct agent_stream *)&handle;
}

void agent_stream_cancel(struct agent_stream *stream)
{
    (void)stream;
}

struct e2b_call *e2b_read(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                          const struct e2b_read_request *request)
{
    (void)e2b;
    (void)sandbox;
    world.read = *request;
    world.reading = true;
    return (struct e2b_call *)&handle;
}

void e2b_call_cancel(struct e2b_call *call)
{
    (void)call;
    world.reading = false;
}

static void answer(void)
{
    world.reading = false;
    world.read.on_bytes(world.read.context, "text", 4);
    world.read.on_read(world.read.context, &(struct e2b_result){.error = RUN_ERROR_NONE});
}

/* --- the run ---------------------------------------------------------------------------------------------- */

static void on_file(void *context, const char *path, struct spool *spool)
{
    size_t length = strlen(world.files);

    (void)context;
    assert_int_equal(spool_length(spool), 4);
    snprintf(world.files + length, sizeof world.files - length, "%s ", path);
    spool_free(spool);
}

static void on_done(void *context, bool incomplete)
{
    (void)context;
    world.done = true;
    world.incomplete = incomplete;
}

static bool collect(void)
{
    const struct collection_limits limits = {.file_bytes = 1000, .total_timeout_ms = 60000};
    struct collection *collection;

    *world.files = '\0';
    world.done = world.reading = world.incomplete = false;
    collection = collection_start(&world.e2b, (struct e2b_sandbox *)&handle, &limits, world.inputs,
                                  &(struct collection_handlers){.on_file = on_file, .on_done = on_done});
    if (collection == NULL)
        return false;
    world.listing.handlers.on_output(world.listing.handlers.context, false, first, sizeof first - 1);
    world.listing.handlers.on_output(world.listing.handlers.context, false, rest, sizeof rest - 1);
    world.listing.handlers.on_exit(world.listing.handlers.context, 0, "exit status 0");
    while (!world.done) {
        if (world.reading)
            answer();
        event_base_loop(world.e2b.base, EVLOOP_NONBLOCK);
    }
    if (!world.incomplete)
        assert_string_equal(world.files, "a.txt b.txt c.txt ");
    return !world.incomplete;
}

static void test_files_come_back_or_are_missed(void **state)
{
    (void)state;
    memory_sweep("collection", collect);
}

static void on_place(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
}

static int set_up(void **state)
{
    (void)state;
    world.e2b.base = event_base_new();
    world.inputs = input_files_new(NULL);
    world.place = evtimer_new(world.e2b.base, on_place, NULL);
    return world.inputs != NULL && evtimer_add(world.place, &(struct timeval){.tv_sec = 3600}) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    event_free(world.place);
    input_files_free(world.inputs);
    event_base_free(world.e2b.base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_come_back_or_are_missed),
    };

    memory_watch_start();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
