/*
 * Events on their way to a client: each request for memory refused in turn. A client gets all events or loses its
 * connection: none is left out. The connection is a pair of sockets, what is around it is faked.
 */
#include "tests/unit/failing_memory.h"

#include "worker/access_log.h"
#include "worker/agent_output.h"
#include "worker/client.h"
#include "worker/event_stream.h"
#include "worker/memory_watch.h"

#include <event2/http.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    struct event_base *base;
    struct settings settings;
    struct bufferevent *bufferevent;
    struct exchange exchange;
    struct client_watcher watcher;
    int server, client; /* the two ends */
    bool aborted;
    int gone, failed;
    char received[4096]; /* without the framing of chunks */
} world;

static int handle; /* what the fakes return a pointer to */

/* --- fakes --------------------------------------------------------------------------------------------- */

struct event_base *server_base(struct server *server)
{
    (void)server;
    return world.base;
}

const struct settings *server_settings(const struct server *server)
{
    (void)server;
    return &world.settings;
}

struct access_entry *server_access(const struct exchange *exchange)
{
    (void)exchange;
    return NULL;
}

/* evhttp announces chunks on a real connection. */
void server_add_headers(struct exchange *exchange)
{
    evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "Transfer-Encoding", "chunked");
}

void server_reply_internal(struct exchange *exchange, const char *reason)
{
    (void)exchange;
    fail_msg("answered with 500: %s", reason);
}

struct bufferevent *client_bufferevent(struct client *client)
{
    (void)client;
    return world.bufferevent;
}

int client_socket(struct client *client)
{
    (void)client;
    return world.server;
}

void client_watch(struct client *client, const struct client_watcher *watcher)
{
    (void)client;
    world.watcher = *watcher;
}

void client_keep(struct client *client)
{
    (void)client;
}

void client_abort(struct client *client)
{
    (void)client;
    world.aborted = true;
}

/* --- the two ends ---------------------------------------------------------------------------------------- */

static void on_drained(void *context)
{
    (void)context;
}

static void on_gone(void *context, const char *reason)
{
    (void)context;
    (void)reason;
    world.gone++;
}

/* A client that was answered; whatever that takes is not what is tried here. */
static struct event_stream *open_stream(void)
{
    const struct event_stream_handlers handlers = {.on_drained = on_drained, .on_gone = on_gone};
    long refused = memory.refused;
    struct event_stream *stream;
    int ends[2];

    memory.refused = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    world.server = ends[0];
    world.client = ends[1];
    world.gone = world.failed = 0;
    world.aborted = false;
    world.bufferevent = bufferevent_socket_new(world.base, world.server, 0);
    world.exchange = (struct exchange){.client = (struct client *)&handle, .request = evhttp_request_new(NULL, NULL)};
    stream = event_stream_open(&world.exchange, "a-run", &handlers);
    memory.refused = refused;
    return stream;
}

/* What came, chunk by chunk. */
static void receive(void)
{
    char bytes[sizeof world.received], *at = bytes, *out = world.received;
    ssize_t length = read(world.client, bytes, sizeof bytes - 1);

    for (bytes[length > 0 ? length : 0] = '\0'; *at != '\0';) {
        size_t size = strtoul(at, &at, 16);

        assert_memory_equal(at, "\r\n", 2);
        assert_true(size > 0 && strlen(at) >= size + 4);
        memcpy(out, at + 2, size);
        out += size;
        at += size + 4;
    }
    *out = '\0';
}

/* The loop has its turn, and the connection ends. True: nobody was told of a lack, and all that is expected came. */
static bool close_stream(struct event_stream *stream, const char *expected)
{
    event_base_loop(world.base, EVLOOP_NONBLOCK);
    memory.refused = 0;
    if (world.gone + world.failed == 0) {
        receive();
        assert_string_equal(world.received, expected);
    }
    assert_int_equal(world.aborted, world.gone > 0);
    if (world.gone == 0)
        event_stream_abort(stream);
    world.watcher.on_closed(world.watcher.context);
    bufferevent_free(world.bufferevent);
    close(world.server);
    close(world.client);
    return world.gone + world.failed == 0;
}

/* --- what is sent ---------------------------------------------------------------------------------------- */

static bool put_events(void)
{
    struct event_stream *stream = open_stream();

    event_stream_put_line(stream, "a line", 6);
    event_stream_put_line(stream, "two\rlines", 9);
    event_stream_flush(stream);
    event_stream_put_json(stream, json_pack("{s:s}", "type", "warning"));
    event_stream_put_line(stream, "the last one", 12);
    event_stream_flush(stream);
    return close_stream(stream, "data: a line\n\ndata: two\ndata: lines\n\n"
                                "data: {\"type\":\"warning\"}\n\ndata: the last one\n\n");
}

static void test_events(void **state)
{
    (void)state;
    memory_sweep("event_stream_put_line and _put_json", put_events);
}

static void on_report(void *context)
{
    (void)context;
}

static void on_failed(void *context, enum run_error error, const char *message)
{
    (void)context;
    assert_int_equal(error, RUN_ERROR_INTERNAL);
    assert_string_equal(message, "out of memory");
    world.failed++;
}

static bool print(void)
{
    const struct agent_output_handlers handlers = {
        .on_report = on_report, .on_terminal = on_report, .on_failed = on_failed};
    struct event_stream *stream = open_stream();
    struct agent_output output = {.stream = NULL};
    bool good;

    agent_output_init(&output, world.base, 4096, &handlers);
    agent_output_listen(&output, stream);
    agent_output_add(&output, true, "one\n\xff two\n", 10);
    agent_output_add(&output, false, "{\"type\":\"a\"}\n{\"type\":", 21);
    agent_output_flush(&output);
    agent_output_add(&output, false, "\"b\"}", 4);
    agent_output_add(&output, true, "three", 5);
    agent_output_flush(&output);
    agent_output_finish(&output);
    good = close_stream(stream, "data: {\"type\":\"stderr\",\"data\":\"one\\n\xef\xbf\xbd two\"}\n\n"
                                "data: {\"type\":\"a\"}\n\n"
                                "data: {\"type\":\"stderr\",\"data\":\"three\"}\n\n"
                                "data: {\"type\":\"b\"}\n\n");
    agent_output_release(&output);
    return good;
}

static void test_what_an_agent_prints(void **state)
{
    (void)state;
    memory_sweep("agent_output_add", print);
}

static int set_up(void **state)
{
    (void)state;
    world.base = event_base_new();
    world.settings = (struct settings){.output_buffer_bytes = 65536, .client_stall_timeout_ms = 60000};
    return world.base != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    event_base_free(world.base);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_what_an_agent_prints),
    };

    memory_watch_start();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
