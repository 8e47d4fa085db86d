/*
 * load: opens many streams at once and checks every event of each: its run, its number, its bytes, and how long it
 * took.
 *
 *     load --port P [--port P]... --streams N --bytes B [--path /query|/sse] [--events E] [--ramp N/s] [--read-rate
 * BYTES/s]
 *
 * Streams open at the ramp's rate, on each port as many as on the others, and are read to their end. Once a second, and
 * at the end, a line of JSON tells how far it is; the last one has "over":true and the distributions. Ends by itself,
 * or on TERM. Exit 1 when an event was lost, doubled, out of order or another's, or a stream did not end as it should.
 */
#include "tests/bench/program.h"
#include "tests/bench/wire.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RAMP_STEP_MS   10
#define PORTS_MAX      16
#define RUN_HEADER     "\r\nX-Sandstorm-Run-Id: "
#define DATA_PREFIX    "data: "
#define EVENT_PREFIX   "{\"type\":\"assistant\",\"seq\":"
#define RESULT_PREFIX  "{\"type\":\"result\""
#define LINE_MAX_BYTES 131072
/* Buckets of a histogram: 64 for each doubling, from 1 µs to more than an hour. */
#define PER_DOUBLING 64
#define BUCKETS      (PER_DOUBLING * 33)

static struct {
    uint16_t ports[PORTS_MAX];
    size_t ports_count;
    uint64_t streams, bytes, events, ramp, read_rate;
    const char *path;
} options = {.streams = 100, .bytes = 200, .ramp = 500, .path = "/query"};

struct histogram {
    uint64_t counts[BUCKETS];
    uint64_t total, max_us;
};

static struct {
    uint64_t begun, open, first, complete, failed, refused;
    uint64_t events, bytes, lost, doubled, foreign, torn;
    struct histogram latency, first_event;
} seen;

static struct event_base *base;
static struct event *ramp_timer;
static uint64_t begun_us;
static struct ev_token_bucket_cfg *read_limit;

enum state {
    STATE_HEAD,
    STATE_SIZE, /* of a chunk */
    STATE_CHUNK,
    STATE_AFTER, /* CRLF behind a chunk */
    STATE_OVER,
};

struct stream {
    struct bufferevent *bufferevent;
    enum state state;
    size_t left; /* of the chunk */
    char run[RUN_ID_BYTES + 1];
    uint64_t next;
    uint64_t asked_us;
    bool has_result;
    struct evbuffer *text; /* of events that are not complete yet */
};

/* --- distributions ------------------------------------------------------------------------------------- */

static void record(struct histogram *histogram, uint64_t us)
{
    size_t bucket = us > 0 ? (size_t)(log2((double)us) * PER_DOUBLING) + 1 : 0;

    histogram->counts[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    histogram->total++;
    if (us > histogram->max_us)
        histogram->max_us = us;
}

/* The value that a share of all does not exceed. */
static uint64_t percentile(const struct histogram *histogram, double share)
{
    uint64_t wanted = (uint64_t)ceil(share * (double)histogram->total), passed = 0;

    for (size_t i = 0; i < BUCKETS; i++) {
        passed += histogram->counts[i];
        if (passed >= wanted && wanted > 0)
            return i > 0 ? (uint64_t)exp2((double)i / PER_DOUBLING) : 0;
    }
    return 0;
}

static void print_distribution(const char *name, const struct histogram *histogram)
{
    printf(",\"%s\":{\"count\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p90\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"max\":%" PRIu64
           "}",
           name, histogram->total, percentile(histogram, 0.5), percentile(histogram, 0.9), percentile(histogram, 0.99),
           histogram->max_us);
}

static void print_state(bool over)
{
    printf("{\"over\":%s,\"seconds\":%.3f,\"begun\":%" PRIu64 ",\"open\":%" PRIu64 ",\"first\":%" PRIu64
           ",\"complete\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"events\":%" PRIu64
           ",\"bytes\":%" PRIu64 ",\"lost\":%" PRIu64 ",\"doubled\":%" PRIu64 ",\"foreign\":%" PRIu64
           ",\"torn\":%" PRIu64,
           over ? "true" : "false", (double)(wire_now_us() - begun_us) / 1e6, seen.begun, seen.open, seen.first,
           seen.complete, seen.failed, seen.refused, seen.events, seen.bytes, seen.lost, seen.doubled, seen.foreign,
           seen.torn);
    print_distribution("latency_us", &seen.latency);
    print_distribution("first_event_us", &seen.first_event);
    printf("}\n");
    fflush(stdout);
}

/* --- events -------------------------------------------------------------------------------------------- */

static void check_number(struct stream *stream, uint64_t number)
{
    if (number > stream->next)
        seen.lost += number - stream->next;
    else if (number < stream->next)
        seen.doubled++;
    if (number >= stream->next)
        stream->next = number + 1;
}

/* A numbered event: EVENT_PREFIX number,"run":"…","at":time,"pad":"xxx"} */
static void take_event(struct stream *stream, const char *line, size_t length)
{
    char *at = (char *)(uintptr_t)line + sizeof EVENT_PREFIX - 1, *end;
    uint64_t number = strtoull(at, &end, 10), sent_us;

    if (strncmp(end, ",\"run\":\"", 8) != 0 || strncmp(end + 8, stream->run, RUN_ID_BYTES) != 0) {
        seen.foreign++;
        return;
    }
    at = end + 8 + RUN_ID_BYTES;
    if (strncmp(at, "\",\"at\":", 7) != 0 || length != options.bytes - 1 ||
        memcmp(line + length - 2, WIRE_END, 2) != 0) {
        seen.torn++;
        return;
    }
    sent_us = strtoull(at + 7, NULL, 10);
    check_number(stream, number);
    seen.events++;
    record(&seen.latency, wire_now_us() - sent_us);
    if (number == 1) {
        seen.first++;
        record(&seen.first_event, wire_now_us() - stream->asked_us);
    }
}

static void take_line(struct stream *stream, const char *line, size_t length)
{
    if (length < sizeof DATA_PREFIX - 1 || strncmp(line, DATA_PREFIX, sizeof DATA_PREFIX - 1) != 0)
        return;
    line += sizeof DATA_PREFIX - 1;
    length -= sizeof DATA_PREFIX - 1;
    if (strncmp(line, EVENT_PREFIX, sizeof EVENT_PREFIX - 1) == 0)
        take_event(stream, line, length);
    else if (strncmp(line, RESULT_PREFIX, sizeof RESULT_PREFIX - 1) == 0)
        stream->has_result = true;
}

static void take_lines(struct stream *stream)
{
    size_t length;
    char *line;

    while ((line = evbuffer_readln(stream->text, &length, EVBUFFER_EOL_LF)) != NULL) {
        take_line(stream, line, length);
        free(line);
    }
}

/* --- streams ------------------------------------------------------------------------------------------- */

static void leave_if_over(void)
{
    if (seen.begun == options.streams && seen.open == 0)
        event_base_loopbreak(base);
}

static void stream_free(struct stream *stream)
{
    bool is_complete = stream->state == STATE_OVER && stream->has_result &&
                       (options.events == 0 || stream->next == options.events + 1);

    if (is_complete) {
        seen.complete++;
    } else {
        seen.failed++;
        if (options.events > 0 && stream->next <= options.events)
            seen.lost += options.events + 1 - stream->next;
    }
    seen.open--;
    evbuffer_free(stream->text);
    bufferevent_free(stream->bufferevent);
    free(stream);
    leave_if_over();
}

/* False when it is not there yet; a refusal ends the stream. */
static bool take_head(struct stream *stream, struct evbuffer *input)
{
    struct evbuffer_ptr blank = evbuffer_search(input, "\r\n\r\n", 4, NULL);
    char head[4096];
    size_t length;
    const char *run;

    if (blank.pos < 0 || (size_t)blank.pos + 5 > sizeof head)
        return false;
    length = (size_t)blank.pos + 4;
    evbuffer_remove(input, head, length);
    head[length] = '\0';
    if (strncmp(head, "HTTP/1.1 200 ", 13) != 0) {
        seen.refused++;
        stream->state = STATE_OVER;
        return true;
    }
    run = strcasestr(head, RUN_HEADER);
    if (run != NULL)
        memcpy(stream->run, run + sizeof RUN_HEADER - 1, RUN_ID_BYTES);
    stream->state = STATE_SIZE;
    return true;
}

/* False when there is not enough for a step. */
static bool take_step(struct stream *stream, struct evbuffer *input)
{
    char *line;
    int moved;

    switch (stream->state) {
    case STATE_HEAD:
        return take_head(stream, input);
    case STATE_SIZE:
        line = evbuffer_readln(input, NULL, EVBUFFER_EOL_CRLF_STRICT);
        if (line == NULL)
            return false;
        stream->left = strtoul(line, NULL, 16);
        stream->state = stream->left > 0 ? STATE_CHUNK : STATE_OVER;
        free(line);
        return true;
    case STATE_CHUNK:
        moved = evbuffer_remove_buffer(input, stream->text, stream->left);
        if (moved <= 0)
            return false;
        seen.bytes += (uint64_t)moved;
        stream->left -= (size_t)moved;
        if (stream->left == 0)
            stream->state = STATE_AFTER;
        return true;
    case STATE_AFTER:
        if (evbuffer_get_length(input) < 2)
            return false;
        evbuffer_drain(input, 2);
        stream->state = STATE_SIZE;
        return true;
    default:
        return false;
    }
}

static void on_read(struct bufferevent *bufferevent, void *context)
{
    struct stream *stream = context;
    struct evbuffer *input = bufferevent_get_input(bufferevent);

    while (take_step(stream, input)) {
    }
    take_lines(stream);
    if (stream->state == STATE_OVER)
        stream_free(stream);
}

static void on_event(struct bufferevent *bufferevent, short what, void *context)
{
    (void)bufferevent;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        stream_free(context);
}

static void begin_stream(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(options.ports[seen.begun % options.ports_count]),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static const char body[] = "{\"prompt\":\"measure\"}";
    struct stream *stream = must(calloc(1, sizeof *stream));

    seen.begun++;
    seen.open++;
    stream->next = 1;
    stream->text = must(evbuffer_new());
    stream->bufferevent = must(bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE));
    snprintf(stream->run, sizeof stream->run, "%016" PRIx64, seen.begun);
    bufferevent_setcb(stream->bufferevent, on_read, NULL, on_event, stream);
    bufferevent_enable(stream->bufferevent, EV_READ | EV_WRITE);
    if (read_limit != NULL)
        bufferevent_set_rate_limit(stream->bufferevent, read_limit);
    stream->asked_us = wire_now_us();
    evbuffer_add_printf(bufferevent_get_output(stream->bufferevent),
                        "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Run: %s\r\nContent-Type: application/json\r\n"
                        "Content-Length: %zu\r\n\r\n%s",
                        options.path, stream->run, sizeof body - 1, body);
    if (bufferevent_socket_connect(stream->bufferevent, (struct sockaddr *)(void *)&address, sizeof address) < 0)
        stream_free(stream);
}

static void on_ramp(evutil_socket_t fd, short what, void *context)
{
    uint64_t due = (wire_now_us() - begun_us) * options.ramp / 1000000 + 1;

    (void)fd;
    (void)what;
    (void)context;
    while (seen.begun < options.streams && seen.begun < due)
        begin_stream();
    if (seen.begun == options.streams)
        event_del(ramp_timer);
}

static void on_second(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    print_state(false);
}

/* USR1: what comes from now on counts. */
static void on_reset(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    (void)context;
    memset(&seen.latency, 0, sizeof seen.latency);
}

/* --- start --------------------------------------------------------------------------------------------- */

static void add_port(uint64_t port)
{
    if (port == 0 || port > UINT16_MAX || options.ports_count == PORTS_MAX) {
        fprintf(stderr, "load: at most %d ports, from 1 to %d\n", PORTS_MAX, UINT16_MAX);
        exit(2);
    }
    options.ports[options.ports_count++] = (uint16_t)port;
}

static void read_options(int argc, char *argv[])
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},      {"streams", required_argument, NULL, 's'},
        {"bytes", required_argument, NULL, 'b'},     {"events", required_argument, NULL, 'e'},
        {"path", required_argument, NULL, 'u'},      {"ramp", required_argument, NULL, 'r'},
        {"read-rate", required_argument, NULL, 'l'}, {NULL, 0, NULL, 0}};
    uint64_t *numbers['z'] = {['s'] = &options.streams,
                              ['b'] = &options.bytes,
                              ['e'] = &options.events,
                              ['r'] = &options.ramp,
                              ['l'] = &options.read_rate};
    int letter;

    while ((letter = getopt_long(argc, argv, "", known, NULL)) != -1) {
        if (letter == '?')
            exit(2);
        if (letter == 'u')
            options.path = optarg;
        else if (letter == 'p')
            add_port(program_number(optarg));
        else
            *numbers[letter] = program_number(optarg);
    }
    if (options.ports_count == 0 || options.ramp == 0) {
        fprintf(stderr, "load: --port is needed, --ramp is not 0\n");
        exit(2);
    }
}

static struct event *every(int ms, event_callback_fn callback)
{
    const struct timeval time = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    struct event *event = must(event_new(base, -1, EV_PERSIST, callback, NULL));

    event_add(event, &time);
    return event;
}

int main(int argc, char *argv[])
{
    const struct timeval tick = {.tv_usec = 100000};

    read_options(argc, argv);
    base = program_loop();
    if (options.read_rate > 0)
        read_limit = must(ev_token_bucket_cfg_new(options.read_rate / 10 + 1, options.read_rate / 10 + 1,
                                                  EV_RATE_LIMIT_MAX, EV_RATE_LIMIT_MAX, &tick));
    program_catch(base, SIGUSR1, on_reset);
    begun_us = wire_now_us();
    ramp_timer = every(RAMP_STEP_MS, on_ramp);
    every(1000, on_second);
    event_base_dispatch(base);
    print_state(true);
    return seen.lost + seen.doubled + seen.foreign + seen.torn + seen.failed + seen.refused > 0 ? EXIT_FAILURE
                                                                                                : EXIT_SUCCESS;
}
