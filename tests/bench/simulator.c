/*
 * simulator: the sandbox service for measurements: control API and envd of tens of thousands of sandboxes at once, on
 * one loopback port (the answers of e2b.md part 0, as far as a run asks for them).
 *
 *     simulator --port P [--events N] [--bytes B] [--interval-us U] [--delay-ms D] [--tls-cert PEM --tls-key PEM]
 *               [--fault lose|double|tear|stray|cut]
 *
 * The agent of each sandbox prints N numbered lines of B bytes, one every U microseconds, or with 0 as fast as they are
 * taken. Every answer but an event waits D milliseconds, which stands for the way there and back. POST /sse gives the
 * same lines as ready-made Server-Sent Events, for a proxy that only relays: its X-Run header names the run. GET
 * /ledger tells what was made, deleted and printed. On USR1 every agent is done: its stream ends when its next line
 * would have come, so that what was printed can be compared with what arrived. A fault spoils one event of every
 * stream, or cuts its end off: so it is tested that the load generator notices.
 *
 * A sandbox's id holds its run's: there is no table to look into.
 */
#include "tests/bench/program.h"
#include "tests/bench/wire.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX_BYTES 8192
#define LINE_MAX_BYTES 65536
#define OUTPUT_HIGH    (256 << 10)
#define OUTPUT_LOW     (64 << 10)
#define LISTEN_BACKLOG 4096
#define ENVELOPE_BYTES 5
#define END_OF_STREAM  2
#define DATA_BEFORE    "{\"event\":{\"data\":{\"stdout\":\""
#define DATA_AFTER     "\"}}}"
#define FIRST_LINE     "{\"type\":\"system\",\"subtype\":\"init\",\"session_id\":\"s\",\"model\":\"simulated\"}\n"
#define LAST_LINE                                                                                                      \
    "{\"type\":\"result\",\"subtype\":\"success\",\"is_error\":false,\"num_turns\":1,\"total_cost_usd\":0.01}\n"
#define FAULTY_EVENT   3
#define STRAY_RUN      "ffffffffffffffff"
#define EVENT_STREAM   "text/event-stream"
#define CONNECT_STREAM "application/connect+json"

/* What is done to event FAULTY_EVENT of a stream. */
enum fault {
    FAULT_NONE,
    FAULT_LOSE,
    FAULT_DOUBLE,
    FAULT_TEAR,  /* a byte is missing */
    FAULT_STRAY, /* another run's */
    FAULT_CUT,   /* not to an event: the agent's last line is missing */
};

static const char *const fault_names[] = {"none", "lose", "double", "tear", "stray", "cut"};

static struct {
    uint64_t events, interval_us, bytes;
    int port, delay_ms;
    enum fault fault;
    const char *tls_cert, *tls_key;
} options = {.events = 100, .interval_us = 200000, .bytes = 200};

static struct {
    uint64_t created, deleted, streams, ended, events, bytes, unknown;
} ledger;

static struct event_base *base;
static SSL_CTX *tls;

/* What a connection's stream is, while one is open. */
enum stream {
    STREAM_NONE,
    STREAM_CONNECT, /* envd's */
    STREAM_SSE,
};

struct connection {
    struct bufferevent *bufferevent;
    struct event *timer; /* the late answer; then the next event */
    struct evbuffer *answer;
    char run[RUN_ID_BYTES + 1];
    enum stream stream;
    enum stream wanted; /* begins after the delay */
    uint64_t next;      /* number of the next event, from 1 */
    uint64_t begun_us;
    char *line;
};

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "simulator: %s: %s\n", what, strerror(errno));
    exit(EXIT_FAILURE);
}

static void wait_us(struct event *timer, uint64_t us)
{
    const struct timeval time = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};

    evtimer_add(timer, &time);
}

static void connection_free(struct connection *connection)
{
    if (connection->stream != STREAM_NONE)
        ledger.ended++;
    event_free(connection->timer);
    evbuffer_free(connection->answer);
    bufferevent_free(connection->bufferevent);
    free(connection->line);
    free(connection);
}

/* --- streams ------------------------------------------------------------------------------------------- */

static void add_chunk(struct evbuffer *out, const void *bytes, size_t length)
{
    evbuffer_add_printf(out, "%zx\r\n", length);
    evbuffer_add(out, bytes, length);
    evbuffer_add(out, "\r\n", 2);
}

static void add_envelope(struct evbuffer *out, unsigned char flags, const char *payload, size_t length)
{
    unsigned char header[ENVELOPE_BYTES] = {flags, (unsigned char)(length >> 24), (unsigned char)(length >> 16),
                                            (unsigned char)(length >> 8), (unsigned char)length};

    evbuffer_add_printf(out, "%zx\r\n", length + sizeof header);
    evbuffer_add(out, header, sizeof header);
    evbuffer_add(out, payload, length);
    evbuffer_add(out, "\r\n", 2);
}

/* One line of the agent, which ends with LF, as the stream wants it. */
static void add_line(struct connection *connection, struct evbuffer *out, const char *line, size_t length)
{
    static char text[sizeof DATA_BEFORE + LINE_MAX_BYTES * 4 / 3 + 8 + sizeof DATA_AFTER];
    size_t used;

    if (connection->stream == STREAM_SSE) {
        used = (size_t)snprintf(text, sizeof text, "data: %.*s\n", (int)length, line);
        add_chunk(out, text, used);
        return;
    }
    used = sizeof DATA_BEFORE - 1;
    memcpy(text, DATA_BEFORE, used);
    used += (size_t)EVP_EncodeBlock((unsigned char *)text + used, (const unsigned char *)line, (int)length);
    memcpy(text + used, DATA_AFTER, sizeof DATA_AFTER);
    add_envelope(out, 0, text, used + sizeof DATA_AFTER - 1);
}

/* The next numbered line, with its LF: its length. */
static size_t write_event(struct connection *connection, enum fault fault)
{
    size_t bytes = options.bytes - (fault == FAULT_TEAR);
    int length = sprintf(connection->line, WIRE_FORMAT, connection->next,
                         fault == FAULT_STRAY ? STRAY_RUN : connection->run, wire_now_us());

    memset(connection->line + length, 'x', bytes - (size_t)length);
    memcpy(connection->line + bytes - sizeof WIRE_END, WIRE_END "\n", sizeof WIRE_END);
    return bytes;
}

static void add_event(struct connection *connection, struct evbuffer *out)
{
    enum fault fault = connection->next == FAULTY_EVENT ? options.fault : FAULT_NONE;
    size_t length = write_event(connection, fault);

    if (fault != FAULT_LOSE)
        add_line(connection, out, connection->line, length);
    if (fault == FAULT_DOUBLE)
        add_line(connection, out, connection->line, length);
    connection->next++;
    ledger.events++;
    ledger.bytes += options.bytes;
}

static void end_stream(struct connection *connection, struct evbuffer *out)
{
    static const char end[] = "{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}";

    if (options.fault != FAULT_CUT)
        add_line(connection, out, LAST_LINE, sizeof LAST_LINE - 1);
    if (connection->stream == STREAM_CONNECT) {
        add_envelope(out, 0, end, sizeof end - 1);
        add_envelope(out, END_OF_STREAM, "{}", 2);
    }
    evbuffer_add(out, "0\r\n\r\n", 5);
    connection->stream = STREAM_NONE;
    ledger.ended++;
}

/* Prints what is due now, and sees to the next. */
static void go_on(struct connection *connection)
{
    struct evbuffer *out = bufferevent_get_output(connection->bufferevent);
    uint64_t due_us;

    if (options.interval_us > 0) {
        if (connection->next <= options.events)
            add_event(connection, out);
        due_us = connection->begun_us + connection->next * options.interval_us;
        if (connection->next <= options.events)
            wait_us(connection->timer, due_us > wire_now_us() ? due_us - wire_now_us() : 0);
    } else {
        while (connection->next <= options.events && evbuffer_get_length(out) < OUTPUT_HIGH)
            add_event(connection, out);
    }
    if (connection->next > options.events)
        end_stream(connection, out);
}

static void want_stream(struct connection *connection, enum stream stream)
{
    connection->wanted = stream;
    wait_us(connection->timer, (uint64_t)options.delay_ms * 1000);
}

static void begin_stream(struct connection *connection)
{
    static const char start[] = "{\"event\":{\"start\":{\"pid\":7}}}";
    struct evbuffer *out = bufferevent_get_output(connection->bufferevent);

    ledger.streams++;
    connection->stream = connection->wanted;
    connection->wanted = STREAM_NONE;
    connection->next = 1;
    connection->begun_us = wire_now_us();
    if (connection->line == NULL)
        connection->line = must(malloc(options.bytes + sizeof WIRE_END));
    evbuffer_add_printf(out, "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
                        connection->stream == STREAM_SSE ? EVENT_STREAM : CONNECT_STREAM);
    if (connection->stream == STREAM_CONNECT)
        add_envelope(out, 0, start, sizeof start - 1);
    add_line(connection, out, FIRST_LINE, sizeof FIRST_LINE - 1);
    if (options.interval_us == 0)
        go_on(connection);
    else
        wait_us(connection->timer, options.interval_us);
}

/* --- requests ------------------------------------------------------------------------------------------ */

static void answer(struct connection *connection, const char *status, const char *type, const char *body)
{
    evbuffer_add_printf(connection->answer, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n%s", status,
                        type, strlen(body), body);
}

static void answer_json(struct connection *connection, const char *status, const char *body)
{
    answer(connection, status, "application/json", body);
}

/* No body and no length: 204. */
static void answer_nothing(struct connection *connection)
{
    evbuffer_add_printf(connection->answer, "HTTP/1.1 204 No Content\r\n\r\n");
}

static void answer_ledger(struct connection *connection)
{
    char text[512];

    snprintf(text, sizeof text,
             "{\"created\":%" PRIu64 ",\"deleted\":%" PRIu64 ",\"streams\":%" PRIu64 ",\"ended\":%" PRIu64
             ",\"events\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"unknown\":%" PRIu64 "}",
             ledger.created, ledger.deleted, ledger.streams, ledger.ended, ledger.events, ledger.bytes, ledger.unknown);
    answer_json(connection, "200 OK", text);
}

/* The run's id behind a mark. */
static bool take_run(struct connection *connection, const char *text, size_t length, const char *mark)
{
    const char *found = memmem(text, length, mark, strlen(mark));

    if (found == NULL || (size_t)(text + length - found) < strlen(mark) + RUN_ID_BYTES)
        return false;
    memcpy(connection->run, found + strlen(mark), RUN_ID_BYTES);
    return true;
}

static void create(struct connection *connection, const char *body, size_t length)
{
    char text[512];

    if (!take_run(connection, body, length, "\"request_id\":\"") &&
        !take_run(connection, body, length, "\"request_id\": \""))
        memset(connection->run, '0', RUN_ID_BYTES);
    snprintf(text, sizeof text,
             "{\"templateID\":\"t\",\"sandboxID\":\"i%s%04" PRIu64 "\",\"clientID\":\"c\",\"envdVersion\":\"0.6.13\","
             "\"alias\":\"sandstorm\",\"envdAccessToken\":\"token\",\"trafficAccessToken\":null,\"domain\":null}",
             connection->run, ledger.created % 10000);
    ledger.created++;
    answer_json(connection, "201 Created", text);
}

static void delete (struct connection *connection)
{
    ledger.deleted++;
    answer_nothing(connection);
}

static void refuse(struct connection *connection)
{
    ledger.unknown++;
    answer_json(connection, "404 Not Found", "{\"code\":404,\"message\":\"not simulated\"}");
}

/* What is no agent: it lists the files that the agent left, and there are none. */
static void start_other(struct connection *connection)
{
    static const char start[] = "{\"event\":{\"start\":{\"pid\":8}}}";
    static const char end[] = "{\"event\":{\"end\":{\"exited\":true,\"status\":\"exit status 0\"}}}";
    struct evbuffer *out = connection->answer;

    evbuffer_add_printf(out,
                        "HTTP/1.1 200 OK\r\nContent-Type: " CONNECT_STREAM "\r\nTransfer-Encoding: chunked\r\n\r\n");
    add_envelope(out, 0, start, sizeof start - 1);
    add_envelope(out, 0, end, sizeof end - 1);
    add_envelope(out, END_OF_STREAM, "{}", 2);
    evbuffer_add(out, "0\r\n\r\n", 5);
}

/* An entry for each part that is a file. */
static void take_files(struct connection *connection, const char *body, size_t length)
{
    static const char mark[] = "; filename=\"";
    char entries[8192] = "[";
    size_t used = 1;

    for (const char *at = body; (at = memmem(at, (size_t)(body + length - at), mark, sizeof mark - 1)) != NULL; at++)
        used += (size_t)snprintf(entries + used, sizeof entries - used, "%s{\"type\":\"file\"}", used > 1 ? "," : "");
    snprintf(entries + used, sizeof entries - used, "]");
    answer(connection, "200 OK", "text/plain", entries);
}

static bool is_call(const char *head, const char *call)
{
    return strncmp(head, call, strlen(call)) == 0;
}

static void serve(struct connection *connection, const char *head, const char *body, size_t length)
{
    bool is_envd = take_run(connection, head, strlen(head), "E2b-Sandbox-Id: i");

    if (is_call(head, "POST /process.Process/Start") && memmem(body, length, "-mindepth", 9) == NULL) {
        want_stream(connection, STREAM_CONNECT);
        return;
    }
    if (is_call(head, "POST /sse") && take_run(connection, head, strlen(head), "X-Run: ")) {
        want_stream(connection, STREAM_SSE);
        return;
    }
    if (is_call(head, "POST /sandboxes ") || is_call(head, "POST /v2/sandboxes "))
        create(connection, body, length);
    else if (is_call(head, "POST /files"))
        take_files(connection, body, length);
    else if (is_call(head, "POST /process.Process/Start"))
        start_other(connection);
    else if (is_call(head, "POST /process."))
        answer_json(connection, "200 OK", "{}");
    else if (is_call(head, "DELETE /sandboxes/"))
        delete (connection);
    else if (is_call(head, "GET /v2/sandboxes"))
        answer_json(connection, "200 OK", "[]");
    else if (is_call(head, "GET /health") && is_envd)
        answer_nothing(connection);
    else if (is_call(head, "GET /health"))
        answer(connection, "200 OK", "text/plain", "Health check successful");
    else if (is_call(head, "GET /ledger"))
        answer_ledger(connection);
    else
        refuse(connection);
    wait_us(connection->timer, (uint64_t)options.delay_ms * 1000);
}

/* The value of a header that is a number; 0 when it is not there. */
static size_t number_header(const char *head, const char *name)
{
    const char *found = strcasestr(head, name);

    return found != NULL ? strtoul(found + strlen(name), NULL, 10) : 0;
}

/* True when a request was complete, and is served. */
static bool take_request(struct connection *connection, struct evbuffer *input)
{
    struct evbuffer_ptr blank = evbuffer_search(input, "\r\n\r\n", 4, NULL);
    static char head[HEAD_MAX_BYTES];
    size_t head_bytes, length;

    if (blank.pos < 0)
        return false;
    head_bytes = (size_t)blank.pos + 4;
    if (head_bytes >= sizeof head)
        fail("a head is too long");
    evbuffer_copyout(input, head, head_bytes);
    head[head_bytes] = '\0';
    length = number_header(head, "\r\nContent-Length:");
    if (evbuffer_get_length(input) < head_bytes + length) {
        if (strcasestr(head, "\r\nExpect: 100-continue") != NULL && evbuffer_get_length(input) == head_bytes)
            evbuffer_add_printf(bufferevent_get_output(connection->bufferevent), "HTTP/1.1 100 Continue\r\n\r\n");
        return false;
    }
    evbuffer_drain(input, head_bytes);
    serve(connection, head, length > 0 ? (const char *)evbuffer_pullup(input, (ev_ssize_t)length) : "", length);
    evbuffer_drain(input, length);
    return true;
}

/* --- connections --------------------------------------------------------------------------------------- */

/* One request at a time: what comes meanwhile waits. */
static void serve_next(struct connection *connection)
{
    if (connection->stream == STREAM_NONE && connection->wanted == STREAM_NONE &&
        evbuffer_get_length(connection->answer) == 0)
        take_request(connection, bufferevent_get_input(connection->bufferevent));
}

static void on_read(struct bufferevent *bufferevent, void *context)
{
    (void)bufferevent;
    serve_next(context);
}

/* There is room in the output again. */
static void on_write(struct bufferevent *bufferevent, void *context)
{
    struct connection *connection = context;

    (void)bufferevent;
    if (connection->stream != STREAM_NONE && options.interval_us == 0)
        go_on(connection);
    serve_next(connection);
}

static void on_event(struct bufferevent *bufferevent, short what, void *context)
{
    (void)bufferevent;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        connection_free(context);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct connection *connection = context;

    (void)fd;
    (void)what;
    if (connection->wanted != STREAM_NONE) {
        begin_stream(connection);
        return;
    }
    if (connection->stream != STREAM_NONE) {
        go_on(connection);
        return;
    }
    evbuffer_add_buffer(bufferevent_get_output(connection->bufferevent), connection->answer);
    serve_next(connection);
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *from, int length,
                      void *context)
{
    struct connection *connection = must(calloc(1, sizeof *connection));
    int on = 1;

    (void)listener;
    (void)from;
    (void)length;
    (void)context;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connection->bufferevent =
        must(tls != NULL ? bufferevent_openssl_socket_new(base, fd, must(SSL_new(tls)), BUFFEREVENT_SSL_ACCEPTING,
                                                          BEV_OPT_CLOSE_ON_FREE)
                         : bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE));
    connection->timer = must(evtimer_new(base, on_timer, connection));
    connection->answer = must(evbuffer_new());
    bufferevent_setcb(connection->bufferevent, on_read, on_write, on_event, connection);
    bufferevent_setwatermark(connection->bufferevent, EV_WRITE, OUTPUT_LOW, 0);
    bufferevent_enable(connection->bufferevent, EV_READ | EV_WRITE);
}

/* Out of descriptors: there is nothing to measure any more. */
static void on_accept_error(struct evconnlistener *listener, void *context)
{
    (void)listener;
    (void)context;
    fail("accept");
}

/* USR1: no agent has anything more to print. */
static void on_done(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    options.events = 0;
}

/* --- start --------------------------------------------------------------------------------------------- */

static enum fault fault_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof fault_names / sizeof fault_names[0]; i++) {
        if (strcmp(name, fault_names[i]) == 0)
            return (enum fault)i;
    }
    fprintf(stderr, "simulator: no fault is called %s\n", name);
    exit(2);
}

static void read_options(int argc, char *argv[])
{
    static const struct option known[] = {{"port", required_argument, NULL, 'p'},
                                          {"events", required_argument, NULL, 'e'},
                                          {"bytes", required_argument, NULL, 'b'},
                                          {"interval-us", required_argument, NULL, 'i'},
                                          {"delay-ms", required_argument, NULL, 'd'},
                                          {"tls-cert", required_argument, NULL, 'c'},
                                          {"tls-key", required_argument, NULL, 'k'},
                                          {"fault", required_argument, NULL, 'f'},
                                          {NULL, 0, NULL, 0}};
    int letter;

    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (letter) {
        case 'p':
            options.port = (int)program_number(optarg);
            break;
        case 'e':
            options.events = program_number(optarg);
            break;
        case 'b':
            options.bytes = program_number(optarg);
            break;
        case 'i':
            options.interval_us = program_number(optarg);
            break;
        case 'd':
            options.delay_ms = (int)program_number(optarg);
            break;
        case 'c':
            options.tls_cert = optarg;
            break;
        case 'k':
            options.tls_key = optarg;
            break;
        case 'f':
            options.fault = fault_by_name(optarg);
            break;
        default:
            exit(2);
        }
    }
    if (options.port == 0 || options.bytes < WIRE_MIN_BYTES || options.bytes > LINE_MAX_BYTES) {
        fprintf(stderr, "simulator: --port is needed, --bytes is %d to %d\n", WIRE_MIN_BYTES, LINE_MAX_BYTES);
        exit(2);
    }
}

static void read_certificate(void)
{
    if (options.tls_cert == NULL)
        return;
    tls = must(SSL_CTX_new(TLS_server_method()));
    if (SSL_CTX_use_certificate_chain_file(tls, options.tls_cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(tls, options.tls_key, SSL_FILETYPE_PEM) != 1)
        fail("the certificate or its key");
}

int main(int argc, char *argv[])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct evconnlistener *listener;

    read_options(argc, argv);
    read_certificate();
    base = program_loop();
    program_catch(base, SIGUSR1, on_done);
    address.sin_port = htons((uint16_t)options.port);
    listener = evconnlistener_new_bind(base, on_accept, NULL, LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE, LISTEN_BACKLOG,
                                       (struct sockaddr *)(void *)&address, sizeof address);
    if (listener == NULL)
        fail("listen");
    evconnlistener_set_error_cb(listener, on_accept_error);
    event_base_dispatch(base);
    return EXIT_SUCCESS;
}
