#include "worker/request_guard.h"

#include "common/log.h"
#include "worker/percent.h"

#include <ctype.h>
#include <string.h>

/* A chunk size of 16 hex digits fills 64 bits. */
#define CHUNK_DIGITS_MAX 15
/* Trailers and chunk extensions are ignored, within a bound. */
#define TRAILERS_MAX_BYTES (8u << 10)

void request_guard_init(struct request_guard *guard, uint64_t body_limit_bytes)
{
    *guard = (struct request_guard){.body_limit_bytes = body_limit_bytes, .state = GUARD_IN_METHOD};
}

/* RFC 9110 token characters. */
static bool is_token(unsigned char c)
{
    return isalnum(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static void keep(char *buffer, size_t size, size_t *length, char c)
{
    if (*length < size)
        buffer[*length] = c;
    (*length)++;
}

static bool equals(const char *buffer, size_t size, size_t length, const char *text)
{
    size_t wanted = strlen(text);

    return length == wanted && length <= size && memcmp(buffer, text, wanted) == 0;
}

static bool name_is(const struct request_guard *guard, const char *text)
{
    return equals(guard->name, sizeof guard->name, guard->name_length, text);
}

static void trim_value(struct request_guard *guard)
{
    while (guard->value_length > 0 && guard->value_length <= sizeof guard->value &&
           (guard->value[guard->value_length - 1] == ' ' || guard->value[guard->value_length - 1] == '\t'))
        guard->value_length--;
}

/* --- head ------------------------------------------------------------------------------------------- */

static enum guard_verdict end_request_line(struct request_guard *guard)
{
    guard->is_http_1_1 = equals(guard->value, sizeof guard->value, guard->value_length, "HTTP/1.1");
    if (!guard->is_http_1_1 && !equals(guard->value, sizeof guard->value, guard->value_length, "HTTP/1.0"))
        return GUARD_BAD;
    guard->state = GUARD_AT_LINE_START;
    return GUARD_MORE;
}

/* One Content-Length, all digits. */
static enum guard_verdict take_length(struct request_guard *guard)
{
    uint64_t length = 0;

    if (guard->has_length || guard->value_length == 0 || guard->value_length > 18)
        return GUARD_BAD;
    guard->has_length = true;
    for (size_t i = 0; i < guard->value_length; i++) {
        if (!isdigit((unsigned char)guard->value[i]))
            return GUARD_BAD;
        length = length * 10 + (uint64_t)(guard->value[i] - '0');
    }
    guard->body_left = guard->body_bytes = length;
    return GUARD_MORE;
}

/* Exactly one Transfer-Encoding, exactly `chunked`. */
static enum guard_verdict take_transfer_encoding(struct request_guard *guard)
{
    if (guard->has_transfer_encoding || guard->value_length != strlen("chunked"))
        return GUARD_BAD;
    guard->has_transfer_encoding = true;
    for (size_t i = 0; i < guard->value_length; i++) {
        if (tolower((unsigned char)guard->value[i]) != "chunked"[i])
            return GUARD_BAD;
    }
    guard->chunked = true;
    return GUARD_MORE;
}

/* Keeps the place of a field that somebody decides by. */
static void note_field(struct request_guard *guard)
{
    static const char *const names[GUARD_FIELDS] = {
        [GUARD_FIELD_HOST] = "host",
        [GUARD_FIELD_ORIGIN] = "origin",
        [GUARD_FIELD_AUTHORIZATION] = "authorization",
        [GUARD_FIELD_TRIGGER_SECRET] = "x-sandstorm-trigger-secret",
        [GUARD_FIELD_EXPECT] = "expect",
        [GUARD_FIELD_USER_AGENT] = "user-agent",
        [GUARD_FIELD_WANTED_METHOD] = "access-control-request-method",
        [GUARD_FIELD_WANTED_HEADERS] = "access-control-request-headers",
        [GUARD_FIELD_WANTED_PRIVATE_NETWORK] = "access-control-request-private-network",
        [GUARD_FIELD_FORWARDED_FOR] = "x-forwarded-for",
        [GUARD_FIELD_FORWARDED_PROTO] = "x-forwarded-proto",
        [GUARD_FIELD_FORWARDED_HOST] = "x-forwarded-host",
    };

    for (size_t i = 0; i < GUARD_FIELDS; i++) {
        if (!name_is(guard, names[i]))
            continue;
        if (guard->fields[i].start == 0)
            guard->fields[i] = guard->field_value;
        return;
    }
}

static enum guard_verdict end_field(struct request_guard *guard)
{
    guard->state = GUARD_AT_LINE_START;
    if (++guard->headers_count > GUARD_HEADERS_MAX_COUNT)
        return GUARD_HEADERS;
    note_field(guard);
    trim_value(guard);
    if (name_is(guard, "content-length"))
        return take_length(guard);
    if (name_is(guard, "transfer-encoding"))
        return take_transfer_encoding(guard);
    if (name_is(guard, "host")) {
        if (guard->has_host)
            return GUARD_BAD;
        guard->has_host = true;
    }
    return GUARD_MORE;
}

static enum guard_verdict end_head(struct request_guard *guard)
{
    guard->head_complete = true;
    if (guard->has_length && guard->has_transfer_encoding)
        return GUARD_BAD;
    if (guard->is_http_1_1 && !guard->has_host)
        return GUARD_BAD;
    if (!guard->is_http_1_1 && guard->has_transfer_encoding)
        return GUARD_BAD;
    guard->too_large = guard->body_left > guard->body_limit_bytes;
    if (guard->chunked)
        guard->state = GUARD_IN_CHUNK_SIZE;
    else
        guard->state = guard->body_left > 0 ? GUARD_IN_BODY : GUARD_AT_MESSAGE_END;
    return GUARD_HEAD;
}

/* Visible ASCII without %00. */
static enum guard_verdict in_target(struct request_guard *guard, char c)
{
    static const char nul[] = "%00";

    if (c == ' ') {
        guard->state = GUARD_IN_VERSION;
        guard->target.length = guard->position - guard->target.start;
        return GUARD_MORE;
    }
    if (c < 0x21 || c > 0x7e)
        return GUARD_BAD;
    guard->nul_length = c == nul[guard->nul_length] ? guard->nul_length + 1 : c == '%';
    return guard->nul_length == strlen(nul) ? GUARD_BAD : GUARD_MORE;
}

/* The line's end does not count to its length. */
static enum guard_verdict in_request_line(struct request_guard *guard, char c)
{
    if (c != '\n' && ++guard->line_bytes > GUARD_REQUEST_LINE_MAX_BYTES)
        return GUARD_LONG_URI;
    switch (guard->state) {
    case GUARD_IN_METHOD:
        if (c == ' ' && guard->line_bytes > 1) {
            guard->state = GUARD_IN_TARGET;
            guard->method.length = guard->position;
            guard->target.start = guard->position + 1;
        } else if (!is_token((unsigned char)c)) {
            return GUARD_BAD;
        }
        return GUARD_MORE;
    case GUARD_IN_TARGET:
        return in_target(guard, c);
    default:
        if (c == '\n')
            return end_request_line(guard);
        keep(guard->value, sizeof guard->value, &guard->value_length, c);
        return GUARD_MORE;
    }
}

static enum guard_verdict start_line(struct request_guard *guard, char c)
{
    guard->name_length = guard->value_length = 0;
    if (c == '\n')
        return end_head(guard);
    if (!is_token((unsigned char)c)) /* also a folded line */
        return GUARD_BAD;
    guard->state = GUARD_IN_NAME;
    keep(guard->name, sizeof guard->name, &guard->name_length, (char)tolower((unsigned char)c));
    return GUARD_MORE;
}

static enum guard_verdict in_value(struct request_guard *guard, char c)
{
    bool blank = c == ' ' || c == '\t';

    if (c == '\n')
        return end_field(guard);
    if (c != '\t' && (unsigned char)c < 0x20)
        return GUARD_BAD;
    if (blank && guard->value_length == 0) {
        guard->field_value.start = guard->position + 1;
        return GUARD_MORE;
    }
    keep(guard->value, sizeof guard->value, &guard->value_length, c);
    if (!blank)
        guard->field_value.length = guard->position + 1 - guard->field_value.start;
    return GUARD_MORE;
}

static enum guard_verdict in_headers(struct request_guard *guard, char c)
{
    if (++guard->headers_bytes > GUARD_HEADERS_MAX_BYTES)
        return GUARD_HEADERS;
    switch (guard->state) {
    case GUARD_AT_LINE_START:
        return start_line(guard, c);
    case GUARD_IN_NAME:
        if (c == ':') {
            guard->state = GUARD_IN_VALUE;
            guard->field_value = (struct guard_place){guard->position + 1, 0};
        } else if (!is_token((unsigned char)c)) {
            return GUARD_BAD;
        } else {
            keep(guard->name, sizeof guard->name, &guard->name_length, (char)tolower((unsigned char)c));
        }
        return GUARD_MORE;
    default:
        return in_value(guard, c);
    }
}

/* --- body ------------------------------------------------------------------------------------------- */

static enum guard_verdict end_chunk_size(struct request_guard *guard)
{
    if (guard->chunk_digits == 0)
        return GUARD_BAD;
    guard->chunk_digits = 0;
    guard->line_bytes = 0;
    guard->body_bytes += guard->body_left;
    if (guard->body_bytes > guard->body_limit_bytes)
        return GUARD_TOO_LARGE;
    guard->state = guard->body_left > 0 ? GUARD_IN_CHUNK : GUARD_IN_TRAILERS;
    return GUARD_MORE;
}

static enum guard_verdict in_chunk_size(struct request_guard *guard, char c)
{
    int digit = hex_digit(c);

    if (c == '\n')
        return end_chunk_size(guard);
    if (++guard->line_bytes > TRAILERS_MAX_BYTES)
        return GUARD_BAD;
    if (guard->state == GUARD_IN_CHUNK_EXTENSION)
        return c == '\t' || (unsigned char)c >= 0x20 ? GUARD_MORE : GUARD_BAD;
    if (c == ';' && guard->chunk_digits > 0) {
        guard->state = GUARD_IN_CHUNK_EXTENSION;
        return GUARD_MORE;
    }
    if (digit < 0 || ++guard->chunk_digits > CHUNK_DIGITS_MAX)
        return GUARD_BAD;
    guard->body_left = guard->body_left * 16 + (uint64_t)digit;
    return GUARD_MORE;
}

static enum guard_verdict end_trailer(struct request_guard *guard)
{
    bool empty = guard->value_length == 0;
    bool named = guard->trailer_named;

    guard->value_length = 0;
    guard->trailer_named = false;
    if (!empty)
        return named ? GUARD_MORE : GUARD_BAD;
    guard->state = GUARD_AT_MESSAGE_END;
    return GUARD_COMPLETE;
}

/* Trailers are fields nobody reads, and end with an empty line. */
static enum guard_verdict in_trailers(struct request_guard *guard, char c)
{
    if (c == '\n')
        return end_trailer(guard);
    if (++guard->line_bytes > TRAILERS_MAX_BYTES)
        return GUARD_BAD;
    if (guard->trailer_named) {
        if (c != '\t' && (unsigned char)c < 0x20)
            return GUARD_BAD;
    } else if (c == ':' && guard->value_length > 0) {
        guard->trailer_named = true;
    } else if (!is_token((unsigned char)c)) {
        return GUARD_BAD;
    }
    guard->value_length++;
    return GUARD_MORE;
}

static bool is_in_headers(const struct request_guard *guard)
{
    return guard->state >= GUARD_AT_LINE_START && guard->state <= GUARD_IN_VALUE;
}

static bool is_in_chunks(const struct request_guard *guard)
{
    return guard->state >= GUARD_IN_CHUNK_SIZE && guard->state <= GUARD_IN_TRAILERS;
}

/*
 * CR counts only directly before LF; anywhere else in the framing it is an attack. So is LF alone between chunks, where
 * others look for the end of a line elsewhere; a head may have it (RFC 9112 2.2).
 */
static enum guard_verdict feed_byte(struct request_guard *guard, char c)
{
    if (guard->state == GUARD_AT_MESSAGE_END)
        return GUARD_PIPELINED;
    if (guard->seen_cr ? c != '\n' : c == '\n' && is_in_chunks(guard))
        return GUARD_BAD;
    guard->seen_cr = c == '\r';
    if (c == '\r') {
        guard->headers_bytes += is_in_headers(guard);
        return GUARD_MORE;
    }
    switch (guard->state) {
    case GUARD_IN_CHUNK_SIZE:
    case GUARD_IN_CHUNK_EXTENSION:
        return in_chunk_size(guard, c);
    case GUARD_AT_CHUNK_END:
        guard->state = GUARD_IN_CHUNK_SIZE;
        return c == '\n' ? GUARD_MORE : GUARD_BAD;
    case GUARD_IN_TRAILERS:
        return in_trailers(guard, c);
    default:
        return guard->state <= GUARD_IN_VERSION ? in_request_line(guard, c) : in_headers(guard, c);
    }
}

/* Body bytes pass in runs; returns how many were taken. */
static size_t skip_body(struct request_guard *guard, size_t length)
{
    size_t taken = guard->body_left < length ? (size_t)guard->body_left : length;

    guard->body_left -= taken;
    if (guard->body_left == 0)
        guard->state = guard->chunked ? GUARD_AT_CHUNK_END : GUARD_AT_MESSAGE_END;
    return taken;
}

/* Blanks out what evhttp would not read as it is meant: a byte of a chunk's extension, a tab before a value. */
static void make_plain(const struct request_guard *guard, char *byte)
{
    if ((guard->state == GUARD_IN_CHUNK_EXTENSION && *byte != '\r') ||
        (guard->state == GUARD_IN_VALUE && guard->value_length == 0 && *byte == '\t'))
        *byte = ' ';
}

enum guard_verdict request_guard_feed(struct request_guard *guard, char *bytes, size_t length, size_t *taken)
{
    enum guard_verdict verdict = guard->state == GUARD_AT_MESSAGE_END ? GUARD_COMPLETE : GUARD_MORE;

    *taken = 0;
    if (guard->too_large)
        return GUARD_TOO_LARGE;
    while (*taken < length) {
        if (guard->state == GUARD_IN_BODY || guard->state == GUARD_IN_CHUNK) {
            *taken += skip_body(guard, length - *taken);
            verdict = guard->state == GUARD_AT_MESSAGE_END ? GUARD_COMPLETE : GUARD_MORE;
        } else {
            bool in_head = !guard->head_complete;

            verdict = feed_byte(guard, bytes[*taken]);
            make_plain(guard, &bytes[*taken]);
            (*taken)++;
            guard->position += in_head;
        }
        if (verdict != GUARD_MORE && verdict != GUARD_COMPLETE)
            break;
    }
    return verdict;
}

static struct span piece(const char *bytes, struct guard_place place)
{
    return (struct span){bytes + place.start, place.length};
}

void request_guard_head(const struct request_guard *guard, const char *bytes, struct request_head *head)
{
    head->method = piece(bytes, guard->method);
    head->target = piece(bytes, guard->target);
    for (size_t i = 0; i < GUARD_FIELDS; i++)
        head->fields[i] = guard->fields[i].start > 0 ? piece(bytes, guard->fields[i]) : (struct span){NULL, 0};
}

bool request_guard_started(const struct request_guard *guard)
{
    return guard->head_complete || guard->line_bytes > 0;
}

bool request_guard_has_body(const struct request_guard *guard)
{
    return guard->chunked || guard->body_bytes > 0;
}

int guard_status(enum guard_verdict verdict)
{
    switch (verdict) {
    case GUARD_MORE:
    case GUARD_HEAD:
    case GUARD_COMPLETE:
    case GUARD_PIPELINED:
        return 0;
    case GUARD_BAD:
        return 400;
    case GUARD_TOO_LARGE:
        return 413;
    case GUARD_LONG_URI:
        return 414;
    case GUARD_HEADERS:
        return 431;
    default:
        log_panic("request_guard: verdict %d", (int)verdict);
    }
}
