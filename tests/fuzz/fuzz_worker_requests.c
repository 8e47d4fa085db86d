/*
 * Connections to a worker, from their first byte, PROXY headers too: however the bytes are cut the same requests reach
 * the same handlers with the same bodies, every answer is one of ours and none of libevent's, a stream of events gives
 * back the lines that were put into it, and nothing is left of a client that has left.
 */
#include "common/log.h"
#include "common/metrics.h"
#include "sandboxd/body_framing.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "worker/event_stream.h"
#include "worker/proxy_header.h"
#include "worker/request_guard.h"

#include <errno.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Turns of the loop in which nothing happened, after which nothing will. */
#define QUIET_TURNS      4
#define STATUS_BYTES     (sizeof "HTTP/1.1 200" - 1)
#define CONTINUE         "HTTP/1.1 100 Continue\r\n\r\n"
#define BODY_LIMIT       "65536"
#define BODY_LIMIT_BYTES 65536
#define PLAIN            0
#define PROXIED          1
#define SOCKETS          2

static struct event_base *base;
static struct server *server;
static struct scoreboard *scoreboard;
static int slot;
static struct sockaddr_un addresses[SOCKETS];
static socklen_t address_lengths[SOCKETS];

/* What came of a connection. */
struct outcome {
    struct evbuffer *requests; /* that reached a handler: its name, the id, the body */
    struct evbuffer *events;   /* the lines of the last stream, each with an end */
    struct evbuffer *answer;
    bool has_request, has_stream;
    size_t body_bytes; /* of the first request */
};

static struct outcome *outcome;

/* --- the handlers ----------------------------------------------------------------------------------------- */

static void note(const struct exchange *exchange, const char *name)
{
    size_t length = exchange->body_length;

    if (!outcome->has_request)
        outcome->body_bytes = length;
    outcome->has_request = true;
    evbuffer_add_printf(outcome->requests, "%s %.*s %zu ", name, (int)exchange->id.length,
                        exchange->id.bytes != NULL ? exchange->id.bytes : "", length);
    evbuffer_add(outcome->requests, exchange->body, length);
}

static void on_gone(void *context, const char *reason)
{
    (void)context;
    (void)reason;
}

static void on_drained(void *context)
{
    (void)context;
}

/* A stream of the lines of the body. */
static void stream_lines(struct exchange *exchange)
{
    static const struct event_stream_handlers handlers = {.on_drained = on_drained, .on_gone = on_gone};
    /* The stream does not keep the body. */
    char *copy = fuzz_text((const uint8_t *)exchange->body, exchange->body_length);
    const char *text = copy, *end = text + exchange->body_length, *line_end;
    struct event_stream *stream;

    note(exchange, "stream");
    stream = event_stream_open(exchange, "0123456789abcdef", &handlers);
    FUZZ_CHECK(stream != NULL);
    outcome->has_stream = true;
    evbuffer_drain(outcome->events, evbuffer_get_length(outcome->events));
    for (; text < end; text = line_end + 1) {
        line_end = memchr(text, '\n', (size_t)(end - text));
        line_end = line_end != NULL ? line_end : end;
        event_stream_put_line(stream, text, (size_t)(line_end - text));
        evbuffer_add(outcome->events, text, (size_t)(line_end - text));
        evbuffer_add(outcome->events, "\n", 1);
        if ((line_end - text) % 3 == 0)
            event_stream_flush(stream);
    }
    event_stream_end(stream);
    free(copy);
}

static void tell_id(struct exchange *exchange)
{
    note(exchange, "id");
    server_reply_detail(exchange, 404, "Run not found");
}

static void tell_health(struct exchange *exchange)
{
    note(exchange, "health");
    server_reply_json(exchange, 200, json_pack("{s:s}", "status", "ok"));
}

static const struct route table[] = {
    {.method = EVHTTP_REQ_POST, .path = "/query", .handler = stream_lines},
    {.method = EVHTTP_REQ_GET, .path = "/runs/{id}", .handler = tell_id, .guarded = true},
    {.method = EVHTTP_REQ_GET, .path = "/health", .handler = tell_health, .keep_alive = true},
    {.path = NULL},
};

/* --- the world -------------------------------------------------------------------------------------------- */

static int listen_on(int which)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    /* A name of its own in no file system: the kernel chooses it. */
    addresses[which].sun_family = AF_UNIX;
    FUZZ_CHECK(bind(fd, (struct sockaddr *)&addresses[which], sizeof addresses->sun_family) == 0);
    address_lengths[which] = sizeof *addresses;
    FUZZ_CHECK(getsockname(fd, (struct sockaddr *)&addresses[which], &address_lengths[which]) == 0);
    FUZZ_CHECK(listen(fd, 8) == 0);
    return fd;
}

static void set_up(void)
{
    char *words[] = {"sandstorm", "--project-dir", "/proc", "--body-limit", BODY_LIMIT, "--trusted-proxies", "*", NULL};
    int fds[SOCKETS] = {listen_on(PLAIN), listen_on(PROXIED)};
    struct settings_load *load;
    bool usage;

    clearenv();
    signal(SIGPIPE, SIG_IGN); /* as a worker does */
    log_set_level(LOG_LEVEL_ERROR);
    load = settings_load(7, words, NULL);
    FUZZ_CHECK(*settings_load_errors(load, &usage) == '\0');
    scoreboard = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 2, .run_history = 2}, NULL);
    slot = scoreboard_take_slot(scoreboard, 1);
    metrics_open(scoreboard, slot);
    base = event_base_new();
    FUZZ_CHECK(event_base_priority_init(base, SERVER_PRIORITIES) == 0);
    server = server_new(base, settings_load_values(load), table, NULL, NULL);
    FUZZ_CHECK(server != NULL && server_listen(server, scoreboard, slot, fds, SOCKETS, 1u << PROXIED));
}

/* --- the answer ------------------------------------------------------------------------------------------- */

static void check_stream(const char *body, size_t length, bool is_chunked)
{
    struct evbuffer *raw = evbuffer_new(), *text = evbuffer_new(), *lines = evbuffer_new();
    struct body_framing framing;
    char *line;
    size_t line_length;
    bool is_open = false;

    evbuffer_add(raw, body, length);
    body_framing_begin(&framing, is_chunked, length);
    body_framing_take(&framing, raw, text);
    FUZZ_CHECK(framing.state == BODY_WHOLE && evbuffer_get_length(raw) == 0);
    while ((line = evbuffer_readln(text, &line_length, EVBUFFER_EOL_LF)) != NULL) {
        FUZZ_CHECK(line_length == 0 || strncmp(line, "data: ", 6) == 0);
        FUZZ_CHECK(memchr(line, '\r', line_length) == NULL);
        if (line_length == 0)
            evbuffer_add(lines, "\n", 1);
        else if (is_open)
            evbuffer_add(lines, "\r", 1);
        if (line_length > 0)
            evbuffer_add(lines, line + 6, line_length - 6);
        is_open = line_length > 0;
        free(line);
    }
    FUZZ_CHECK(!is_open && evbuffer_get_length(text) == 0 && fuzz_buffers_equal(lines, outcome->events));
    evbuffer_free(raw);
    evbuffer_free(text);
    evbuffer_free(lines);
}

/* The first answer is ours; one that is a stream is the only one. */
static void check_answer(const char *text, size_t length)
{
    const char *body = memmem(text, length, "\r\n\r\n", 4);
    size_t head = body != NULL ? (size_t)(body + 4 - text) : length;

    FUZZ_CHECK(strncmp(text, "HTTP/1.", 7) == 0 && body != NULL);
    FUZZ_CHECK(memmem(text, head, "\r\nServer: sandstorm\r\n", 21) != NULL);
    if (outcome->has_stream && memmem(text, head, "text/event-stream", 17) != NULL)
        check_stream(text + head, length - head, memmem(text, head, "\r\nTransfer-Encoding: chunked\r\n", 30) != NULL);
}

/* --- the client ------------------------------------------------------------------------------------------- */

static void turn(int fd)
{
    char bytes[16384];
    ssize_t got;

    for (int quiet = 0; quiet < QUIET_TURNS; quiet++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        if (fd < 0 || (got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) <= 0)
            continue;
        evbuffer_add(outcome->answer, bytes, (size_t)got);
        quiet = 0;
    }
}

static void talk(int fd, const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    for (size_t at = 0; at < size;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;
        ssize_t sent = send(fd, data + at, piece, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent <= 0)
            break; /* it has heard enough */
        at += (size_t)sent;
        turn(fd);
    }
    turn(fd);
}

static void play(struct outcome *result, int which, const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    size_t descriptors = fuzz_count_descriptors();
    int fd;
    size_t length;

    *result = (struct outcome){.requests = evbuffer_new(), .events = evbuffer_new(), .answer = evbuffer_new()};
    outcome = result;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FUZZ_CHECK(connect(fd, (struct sockaddr *)&addresses[which], address_lengths[which]) == 0);
    turn(fd);
    talk(fd, data, size, pieces);
    close(fd);
    turn(-1);
    server_sweep(server);
    FUZZ_CHECK(server_open_requests(server, SERVER_WAITING_ALL) == 0);
    FUZZ_CHECK(atomic_load(&scoreboard->slots[slot].connections) == 0);
    FUZZ_CHECK(fuzz_count_descriptors() == descriptors);
    length = evbuffer_get_length(result->answer);
    if (length >= sizeof CONTINUE - 1 &&
        memcmp(evbuffer_pullup(result->answer, -1), CONTINUE, sizeof CONTINUE - 1) == 0)
        evbuffer_drain(result->answer, sizeof CONTINUE - 1);
    length = evbuffer_get_length(result->answer);
    if (length > 0)
        check_answer((const char *)evbuffer_pullup(result->answer, -1), length);
}

static void release(struct outcome *result)
{
    evbuffer_free(result->requests);
    evbuffer_free(result->events);
    evbuffer_free(result->answer);
}

/* The first request as the guard sees it, behind a header of a proxy. *is_head: it is a HEAD. */
static enum guard_verdict read_request(struct request_guard *guard, const uint8_t *data, size_t size, bool is_proxied,
                                       bool *is_head)
{
    char *copy = fuzz_text(data, size), name[INET6_ADDRSTRLEN];
    enum guard_verdict verdict = GUARD_HEAD;
    size_t at = 0, taken;

    if (is_proxied)
        (void)proxy_header_read(copy, size, &at, name);
    *is_head = at + 5 <= size && memcmp(copy + at, "HEAD ", 5) == 0;
    request_guard_init(guard, BODY_LIMIT_BYTES);
    for (; verdict == GUARD_HEAD && at < size; at += taken)
        verdict = request_guard_feed(guard, copy + at, size - at, &taken);
    free(copy);
    return verdict;
}

static void check_same(struct outcome *whole, struct outcome *cut)
{
    size_t length = evbuffer_get_length(whole->answer), cut_length = evbuffer_get_length(cut->answer);

    FUZZ_CHECK((length == 0) == (cut_length == 0));
    FUZZ_CHECK(length < STATUS_BYTES || cut_length < STATUS_BYTES ||
               memcmp(evbuffer_pullup(whole->answer, -1), evbuffer_pullup(cut->answer, -1), STATUS_BYTES) == 0);
    FUZZ_CHECK(fuzz_buffers_equal(whole->requests, cut->requests));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool is_proxied = size >= 6 && (memcmp(data, "PROXY ", 6) == 0 || memcmp(data, "\r\n\r\n\0\r", 6) == 0);
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct outcome whole, cut;
    struct request_guard guard;
    enum guard_verdict verdict;
    bool is_head;

    if (base == NULL)
        set_up();
    play(&whole, is_proxied ? PROXIED : PLAIN, data, size, NULL);
    play(&cut, is_proxied ? PROXIED : PLAIN, data, size, &pieces);
    verdict = read_request(&guard, data, size, is_proxied, &is_head);
    /* What follows the whole request, to libevent the head of a HEAD, may come before the answer or after it. */
    if (verdict != GUARD_PIPELINED && !(is_head && guard.head_complete && request_guard_has_body(&guard)))
        check_same(&whole, &cut);
    /* libevent gave the handler the body that the guard saw. */
    if (verdict == GUARD_COMPLETE && whole.has_request && !is_head)
        FUZZ_CHECK(whole.body_bytes == guard.body_bytes);
    release(&whole);
    release(&cut);
    return 0;
}
