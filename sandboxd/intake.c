#include "sandboxd/intake.h"

#include "sandboxd/body_framing.h"
#include "sandboxd/memory.h"

#include "common/log.h"

#include <ctype.h>
#include <errno.h>
#include <event2/event.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#define BUCKETS 256
/* A head above this is left to evhttp, which refuses it. */
#define HEAD_MAX_BYTES ((size_t)64 * 1024)
/* Of a body that its reader does not take at once. */
#define BODY_HIGH_BYTES ((size_t)256 * 1024)
/* Behind the head of an upload whose turn has not come: nobody sends that much. */
#define AHEAD_MAX_BYTES ((size_t)256 * 1024)
#define READ_BYTES      (64 * 1024)
#define CONTINUE        "HTTP/1.1 100 Continue\r\n\r\n"

enum intake_state {
    INTAKE_HEAD,    /* at the begin of a message: bytes are held until its head is whole */
    INTAKE_PASSING, /* a message goes to evhttp; its request has not come */
    INTAKE_ORDERED, /* an upload's head went to evhttp; its request has not come, or has no reader yet */
    INTAKE_READING, /* a handler reads the body from the socket: evhttp leaves it alone until the answer */
    INTAKE_DROPPING /* the rest of a body is thrown away */
};

struct intake {
    LIST_ENTRY(intake) next;
    struct event_base *base;
    struct bufferevent *peer; /* evhttp's, with a reference of ours */
    enum intake_state state;
    struct event *check;  /* after its output ran dry: evhttp may have let it go */
    bool is_busy;         /* the input is changed by us */
    struct evbuffer *raw; /* what has come and has no place yet */
    struct body_framing framing;
    long long body_bytes; /* as announced, or 0 */
    bool wants_continue;
    struct event *readable; /* while READING */
    struct evbuffer *body;  /* the reader's */
    const struct intake_reader *reader;
    void *arg;
};

LIST_HEAD(intake_list, intake);

struct intake_table {
    struct event_base *base;
    struct intake_list buckets[BUCKETS];
};

static struct intake_list *bucket(struct intake_table *table, const struct bufferevent *peer)
{
    return &table->buckets[((uintptr_t)peer >> 6) % BUCKETS];
}

/* Frees one that is in no list. */
static void intake_free(struct intake *intake)
{
    if (intake->readable != NULL)
        event_free(intake->readable);
    event_free(intake->check);
    evbuffer_free(intake->raw);
    bufferevent_decref(intake->peer);
    free(intake);
}

/* --- the head of an upload ------------------------------------------------------------------------ */

/* What a head says about the body behind it. */
struct head {
    bool is_plain; /* nothing in it that evhttp should judge */
    bool is_chunked;
    bool has_length;
    bool wants_continue;
    uint64_t length;
};

/* The value of a header line when it has this name, else NULL. */
static const char *value_of(const char *line, const char *name)
{
    size_t length = strlen(name);

    if (strncasecmp(line, name, length) != 0 || line[length] != ':')
        return NULL;
    line += length + 1;
    return line + strspn(line, " \t");
}

/* Whether a line asks to upload files: POST /files, with or without a query. */
static bool is_upload_line(const char *line)
{
    static const char start[] = "POST /files";
    const char *rest = line + sizeof start - 1;
    const char *space;

    if (strncmp(line, start, sizeof start - 1) != 0 || (*rest != '?' && *rest != ' '))
        return false;
    space = strchr(rest, ' ');
    return space != NULL && strcmp(space, " HTTP/1.1") == 0;
}

/* Reads a length; false when it is none. */
static bool read_length(struct head *head, const char *text)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 18 || text[digits + strspn(text + digits, " \t")] != '\0' || head->has_length)
        return false;
    head->length = strtoull(text, NULL, 10);
    head->has_length = true;
    return true;
}

/* Reads one header line; false when it is about the body, and not to go on to evhttp. */
static bool read_header(struct head *head, const char *line)
{
    const char *length = value_of(line, "Content-Length");
    const char *coding = value_of(line, "Transfer-Encoding");
    const char *expect = value_of(line, "Expect");

    if (length != NULL) {
        head->is_plain &= read_length(head, length);
    } else if (coding != NULL) {
        head->is_plain &= !head->is_chunked && strcasecmp(coding, "chunked") == 0;
        head->is_chunked = true;
    } else if (expect != NULL) {
        head->is_plain &= strcasecmp(expect, "100-continue") == 0;
        head->wants_continue = true;
    } else {
        return true;
    }
    return false;
}

/*
 * Makes of a head the one that goes to evhttp. false when it is not the plain head of an upload with a body: then it is
 * evhttp's as it is. The head is whole.
 */
static bool rewrite(const char *bytes, size_t length, struct head *head, struct evbuffer *out)
{
    const char *end = bytes + length;
    bool is_first = true;

    *head = (struct head){.is_plain = true};
    while (bytes < end && head->is_plain) {
        const char *line_end = memchr(bytes, '\n', (size_t)(end - bytes));
        size_t line_length = (size_t)(line_end - bytes);
        char *line = strndup(bytes, line_length - (line_length > 0 && line_end[-1] == '\r'));

        if (line == NULL)
            log_panic("out of memory");
        head->is_plain = !is_first || is_upload_line(line);
        /* A folded line would go with the one before it. */
        head->is_plain &= *line != ' ' && *line != '\t';
        if (head->is_plain && (is_first || read_header(head, line)))
            evbuffer_add_printf(out, "%s\r\n", line);
        free(line);
        is_first = false;
        bytes = line_end + 1;
    }
    return head->is_plain && head->is_chunked != (head->has_length && head->length > 0) &&
           !(head->is_chunked && head->has_length);
}

/* The length of the head at the front, its empty line included; 0 when it is not whole. */
static size_t head_length(struct evbuffer *raw)
{
    struct evbuffer_ptr at;
    size_t before = 0;

    evbuffer_ptr_set(raw, &at, 0, EVBUFFER_PTR_SET);
    for (;;) {
        size_t ending = 0;
        struct evbuffer_ptr found = evbuffer_search_eol(raw, &at, &ending, EVBUFFER_EOL_CRLF);

        if (found.pos < 0)
            return 0;
        if ((size_t)found.pos == before)
            return before + ending;
        before = (size_t)found.pos + ending;
        at = found;
        if (evbuffer_ptr_set(raw, &at, ending, EVBUFFER_PTR_ADD) < 0)
            return 0;
    }
}

/* --- what comes ----------------------------------------------------------------------------------- */

/* Lets bytes go on to evhttp. A bufferevent keeps the end of its input frozen while it does not read. */
static void pass(struct intake *intake, struct evbuffer *bytes)
{
    struct evbuffer *input = bufferevent_get_input(intake->peer);

    evbuffer_unfreeze(input, 0);
    if (evbuffer_add_buffer(input, bytes) < 0)
        log_panic("out of memory");
    evbuffer_freeze(input, 0);
}

/* At the begin of a message: lets its head go on, if it is whole. */
static void take_head(struct intake *intake)
{
    size_t length = head_length(intake->raw);
    struct evbuffer *rewritten;
    struct head head;

    if (length == 0 && evbuffer_get_length(intake->raw) <= HEAD_MAX_BYTES)
        return;
    rewritten = evbuffer_new();
    if (rewritten == NULL)
        log_panic("out of memory");
    if (length != 0 &&
        rewrite((const char *)evbuffer_pullup(intake->raw, (ev_ssize_t)length), length, &head, rewritten)) {
        evbuffer_drain(intake->raw, length);
        pass(intake, rewritten);
        body_framing_begin(&intake->framing, head.is_chunked, head.length);
        intake->body_bytes = (long long)head.length;
        intake->wants_continue = head.wants_continue;
        intake->state = INTAKE_ORDERED;
    } else {
        pass(intake, intake->raw);
        intake->state = INTAKE_PASSING;
    }
    evbuffer_free(rewritten);
}

/* Gives what has come its place. */
static void sort_out(struct intake *intake)
{
    intake->is_busy = true;
    if (intake->state == INTAKE_DROPPING) {
        body_framing_take(&intake->framing, intake->raw, NULL);
        if (intake->framing.state == BODY_WHOLE)
            intake->state = INTAKE_HEAD;
        else if (intake->framing.state == BODY_MALFORMED)
            shutdown(bufferevent_getfd(intake->peer), SHUT_RD);
    }
    if (intake->state == INTAKE_HEAD && evbuffer_get_length(intake->raw) > 0)
        take_head(intake);
    if (intake->state == INTAKE_ORDERED && evbuffer_get_length(intake->raw) > AHEAD_MAX_BYTES)
        shutdown(bufferevent_getfd(intake->peer), SHUT_RD);
    intake->is_busy = false;
}

/* Takes the last bytes off the input. */
static void take_off(struct intake *intake, struct evbuffer *input, size_t count)
{
    size_t stay = evbuffer_get_length(input) - count;
    struct evbuffer *front = stay > 0 ? evbuffer_new() : NULL;

    intake->is_busy = true;
    if (front != NULL)
        evbuffer_remove_buffer(input, front, stay);
    evbuffer_add_buffer(intake->raw, input);
    if (front != NULL) {
        evbuffer_prepend_buffer(input, front);
        evbuffer_free(front);
    }
    intake->is_busy = false;
}

/* Bytes were read from the socket, before evhttp sees them. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *arg)
{
    struct intake *intake = arg;

    if (intake->is_busy || info->n_added == 0 || intake->state == INTAKE_PASSING)
        return;
    take_off(intake, input, info->n_added);
    sort_out(intake);
}

/* --- connections ---------------------------------------------------------------------------------- */

/* evhttp lets a connection go without a word to us; then its callbacks are gone. Our reference kept its address. */
static bool is_abandoned(const struct intake *intake)
{
    bufferevent_event_cb event_callback = NULL;

    bufferevent_getcb(intake->peer, NULL, NULL, &event_callback, NULL);
    return event_callback == NULL;
}

/* Frees the intakes of connections that are gone. */
static void sweep(struct intake_table *table)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        struct intake *intake = LIST_FIRST(&table->buckets[i]);

        while (intake != NULL) {
            struct intake *following = LIST_NEXT(intake, next);

            if (intake->state != INTAKE_READING && is_abandoned(intake)) {
                LIST_REMOVE(intake, next);
                intake_free(intake);
            }
            intake = following;
        }
    }
}

/*
 * Right after the callback in which evhttp may have closed the socket, before any other: our reference keeps the
 * bufferevent's events, and on the next descriptor of that number libevent would take them for its own.
 */
static void on_check(evutil_socket_t fd, short what, void *arg)
{
    struct intake *intake = arg;

    (void)fd;
    (void)what;
    if (intake->state == INTAKE_READING || !is_abandoned(intake))
        return;
    LIST_REMOVE(intake, next);
    intake_free(intake);
}

/* An answer is out: evhttp closes the connection after the last. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *arg)
{
    struct intake *intake = arg;

    if (info->n_deleted > 0 && evbuffer_get_length(output) == 0)
        event_active(intake->check, 0, 0);
}

/* evhttp has accepted a connection and wants its bufferevent. */
static struct bufferevent *on_accept(struct event_base *base, void *arg)
{
    struct intake_table *table = arg;
    struct intake *intake = memory_new(sizeof *intake);

    sweep(table);
    intake->base = table->base;
    intake->peer = bufferevent_socket_new(base, -1, 0);
    intake->raw = evbuffer_new();
    intake->check = event_new(base, -1, 0, on_check, intake);
    if (intake->peer == NULL || intake->raw == NULL || intake->check == NULL ||
        event_priority_set(intake->check, INTAKE_PRIORITY) < 0 ||
        evbuffer_add_cb(bufferevent_get_input(intake->peer), on_input, intake) == NULL ||
        evbuffer_add_cb(bufferevent_get_output(intake->peer), on_output, intake) == NULL)
        log_panic("out of memory");
    bufferevent_incref(intake->peer);
    LIST_INSERT_HEAD(bucket(table, intake->peer), intake, next);
    return intake->peer;
}

struct intake_table *intake_table_new(struct event_base *base, struct evhttp *http)
{
    struct intake_table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return NULL;
    table->base = base;
    for (size_t i = 0; i < BUCKETS; i++)
        LIST_INIT(&table->buckets[i]);
    evhttp_set_bevcb(http, on_accept, table);
    return table;
}

void intake_table_free(struct intake_table *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < BUCKETS; i++) {
        struct intake *intake;

        while ((intake = LIST_FIRST(&table->buckets[i])) != NULL) {
            LIST_REMOVE(intake, next);
            intake_free(intake);
        }
    }
    free(table);
}

/* --- requests ------------------------------------------------------------------------------------- */

struct intake *intake_begin(struct intake_table *table, struct evhttp_request *http)
{
    struct bufferevent *peer = evhttp_connection_get_bufferevent(evhttp_request_get_connection(http));
    struct intake *intake;

    LIST_FOREACH(intake, bucket(table, peer), next)
    {
        if (intake->peer == peer)
            break;
    }
    if (intake == NULL)
        log_panic("a connection without intake");
    if (intake->state == INTAKE_ORDERED) {
        /* A client that waits for 100 may send the body after the answer or not: nothing can be read after it. */
        if (intake->wants_continue)
            evhttp_add_header(evhttp_request_get_output_headers(http), "Connection", "close");
        return intake;
    }
    if (intake->state == INTAKE_PASSING) {
        struct evbuffer *input = bufferevent_get_input(peer);

        /* evhttp took the whole message: the next one begins here. */
        intake->state = INTAKE_HEAD;
        take_off(intake, input, evbuffer_get_length(input));
        sort_out(intake);
    }
    return NULL;
}

void intake_finish(struct intake *intake)
{
    if (intake == NULL || intake->state != INTAKE_ORDERED)
        return;
    intake->state = INTAKE_DROPPING;
    sort_out(intake);
}

long long intake_body_bytes(const struct intake *intake)
{
    return intake->body_bytes;
}

/* --- reading -------------------------------------------------------------------------------------- */

/* Gives the reader what is there of the body; true when that was all. */
static bool feed(struct intake *intake)
{
    body_framing_take(&intake->framing, intake->raw, intake->body);
    return intake->framing.state == BODY_WHOLE;
}

/* Reads from the socket; false when nothing more comes. */
static bool read_socket(struct intake *intake)
{
    int got = evbuffer_read(intake->raw, bufferevent_getfd(intake->peer), READ_BYTES);

    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct intake *intake = arg;
    bool is_alive = read_socket(intake);
    bool is_complete = feed(intake);

    (void)fd;
    (void)what;
    if (is_complete || !is_alive || intake->framing.state == BODY_MALFORMED)
        event_del(intake->readable);
    else if (evbuffer_get_length(intake->body) > BODY_HIGH_BYTES)
        event_del(intake->readable);
    if (is_complete || (is_alive && intake->framing.state != BODY_MALFORMED))
        intake->reader->more(intake->arg, is_complete);
    else
        intake->reader->broken(intake->arg);
}

bool intake_take(struct intake *intake, struct evhttp_request *http, struct evbuffer *body,
                 const struct intake_reader *reader, void *arg)
{
    evutil_socket_t fd = bufferevent_getfd(intake->peer);

    if (intake->wants_continue) {
        evhttp_remove_header(evhttp_request_get_output_headers(http), "Connection");
        if (evbuffer_get_length(intake->raw) == 0 &&
            send(fd, CONTINUE, sizeof CONTINUE - 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
            log_debug("100 Continue: %s", strerror(errno));
    }
    intake->state = INTAKE_READING;
    intake->body = body;
    intake->reader = reader;
    intake->arg = arg;
    if (feed(intake))
        return true;
    intake->readable = event_new(intake->base, fd, EV_READ | EV_PERSIST, on_readable, intake);
    if (intake->readable == NULL || event_add(intake->readable, NULL) < 0)
        log_panic("out of memory");
    if (intake->framing.state == BODY_MALFORMED)
        event_active(intake->readable, EV_READ, 0);
    return false;
}

void intake_continue(struct intake *intake)
{
    if (intake->readable != NULL && intake->framing.state != BODY_WHOLE && intake->framing.state != BODY_MALFORMED &&
        evbuffer_get_length(intake->body) <= BODY_HIGH_BYTES)
        event_add(intake->readable, NULL);
}

void intake_leave(struct intake *intake)
{
    if (intake->readable != NULL)
        event_free(intake->readable);
    intake->readable = NULL;
    intake->state = INTAKE_DROPPING;
    if (!is_abandoned(intake))
        sort_out(intake);
}
