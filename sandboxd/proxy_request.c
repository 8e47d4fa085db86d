#include "sandboxd/proxy_request.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

#define METHOD_MAX_BYTES 32
#define LENGTH_MAX       (UINT64_MAX / 16)
#define CHUNK_LINE_MAX   4096
#define HTTP_SCHEME      "http://"
#define HTTP_PORT        80

#define SOCKS_VERSION    5
#define SOCKS_CONNECT    1
#define SOCKS_NO_METHOD  0
#define SOCKS_IPV4       1
#define SOCKS_NAME       3
#define SOCKS_IPV6       4
#define SOCKS_HEAD_BYTES 4

/* A piece of the head. */
struct piece {
    const char *start;
    size_t length;
};

static bool piece_is(const struct piece *piece, const char *text)
{
    return piece->length == strlen(text) && strncasecmp(piece->start, text, piece->length) == 0;
}

/* Takes what comes before the separator off the front of a piece; false when there is none. */
static bool piece_split(struct piece *rest, char separator, struct piece *first)
{
    const char *end = memchr(rest->start, separator, rest->length);

    if (end == NULL)
        return false;
    *first = (struct piece){rest->start, (size_t)(end - rest->start)};
    rest->length -= first->length + 1;
    rest->start = end + 1;
    return true;
}

static void piece_trim(struct piece *piece)
{
    while (piece->length > 0 && (*piece->start == ' ' || *piece->start == '\t')) {
        piece->start++;
        piece->length--;
    }
    while (piece->length > 0 && strchr(" \t", piece->start[piece->length - 1]) != NULL)
        piece->length--;
}

/* --- the request line ----------------------------------------------------------------------------- */

/* A request line and what is in the target of one in absolute form. */
struct request_line {
    struct piece method, target, authority, path;
};

/* A method's or a header's name: bytes of RFC 9110's token. */
static bool is_token(const struct piece *piece)
{
    for (size_t i = 0; i < piece->length; i++) {
        if (!isalnum((unsigned char)piece->start[i]) && strchr("!#$%&'*+-.^_`|~", piece->start[i]) == NULL)
            return false;
    }
    return piece->length > 0 && memchr(piece->start, '\0', piece->length) == NULL;
}

static bool is_printable(const struct piece *piece)
{
    for (size_t i = 0; i < piece->length; i++) {
        if ((unsigned char)piece->start[i] <= ' ' || piece->start[i] == 0x7f)
            return false;
    }
    return piece->length > 0;
}

/* Reads "METHOD target HTTP/1.x". */
static bool read_line(struct piece line, struct request_line *request)
{
    return piece_split(&line, ' ', &request->method) && piece_split(&line, ' ', &request->target) &&
           is_token(&request->method) && request->method.length <= METHOD_MAX_BYTES && is_printable(&request->target) &&
           (piece_is(&line, "HTTP/1.1") || piece_is(&line, "HTTP/1.0"));
}

/* Parts http://authority/path; false for another scheme and for what is no absolute form. */
static bool split_target(struct request_line *request)
{
    const size_t scheme_bytes = strlen(HTTP_SCHEME);
    const struct piece *target = &request->target;
    size_t end = scheme_bytes;

    if (target->length <= scheme_bytes || strncasecmp(target->start, HTTP_SCHEME, scheme_bytes) != 0)
        return false;
    while (end < target->length && strchr("/?#", target->start[end]) == NULL)
        end++;
    request->authority = (struct piece){target->start + scheme_bytes, end - scheme_bytes};
    request->path = (struct piece){target->start + end, target->length - end};
    return memchr(target->start, '#', target->length) == NULL;
}

/* Reads an authority whose port may be left out. Credentials in it are refused: the caller has to send them itself. */
static bool read_authority(const struct piece *authority, struct endpoint *target)
{
    char text[ENDPOINT_HOST_MAX_BYTES + sizeof "[]:65535"];
    bool has_port = authority->length > 0 && authority->start[authority->length - 1] != ']' &&
                    memchr(authority->start, ':', authority->length) != NULL;

    if (has_port)
        return endpoint_parse(authority->start, authority->length, target);
    if (authority->length + sizeof ":80" > sizeof text)
        return false;
    memcpy(text, authority->start, authority->length);
    strcpy(text + authority->length, ":80");
    return endpoint_parse(text, strlen(text), target);
}

/* --- the header lines ----------------------------------------------------------------------------- */

/* Takes the next line off the head; false at its end, and when a line is none: *is_sound tells. */
static bool next_header(struct piece *rest, struct piece *name, struct piece *value, bool *is_sound)
{
    struct piece line;

    if (rest->length == 0)
        return false;
    *is_sound = piece_split(rest, '\n', &line) && line.length > 0 && line.start[line.length - 1] == '\r';
    if (!*is_sound)
        return false;
    line.length--;
    *value = line;
    *is_sound = memchr(line.start, '\r', line.length) == NULL && memchr(line.start, '\0', line.length) == NULL &&
                piece_split(value, ':', name) && is_token(name);
    piece_trim(value);
    return *is_sound;
}

/* Reads a Content-Length. */
static bool read_length(const struct piece *value, uint64_t *length)
{
    *length = 0;
    for (size_t i = 0; i < value->length; i++) {
        if (!isdigit((unsigned char)value->start[i]) || *length > LENGTH_MAX / 10)
            return false;
        *length = *length * 10 + (uint64_t)(value->start[i] - '0');
    }
    return value->length > 0;
}

/* Finds how the body is framed; false for what two readers could understand differently. */
static bool read_framing(struct piece headers, struct proxy_body *body)
{
    struct piece name, value;
    unsigned framings = 0;
    bool is_sound = true;

    *body = (struct proxy_body){.state = PROXY_BODY_ENDED};
    while (next_header(&headers, &name, &value, &is_sound)) {
        if (piece_is(&name, "Content-Length")) {
            framings++;
            is_sound = read_length(&value, &body->bytes);
            body->state = body->bytes > 0 ? PROXY_BODY_LENGTH : PROXY_BODY_ENDED;
        } else if (piece_is(&name, "Transfer-Encoding")) {
            framings++;
            is_sound = piece_is(&value, "chunked");
            body->state = PROXY_BODY_SIZE;
        }
        if (!is_sound)
            return false;
    }
    return is_sound && framings <= 1;
}

/* The lines between the request line and the empty one. */
static struct piece header_lines(const char *head, size_t head_bytes)
{
    const char *start = (const char *)memmem(head, head_bytes, "\r\n", 2) + 2;

    return (struct piece){start, (size_t)(head + head_bytes - 2 - start)};
}

static enum proxy_head_result parse_http(const char *bytes, size_t length, struct proxy_request *request)
{
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    struct request_line line;

    /* Told at once: who speaks another protocol may be waiting for us. */
    if (!isalpha((unsigned char)bytes[0]))
        return PROXY_HEAD_BAD;
    if (end == NULL)
        return PROXY_HEAD_INCOMPLETE;
    request->head_bytes = (size_t)(end + 4 - bytes);
    if (!read_line((struct piece){bytes, (size_t)((const char *)memmem(bytes, length, "\r\n", 2) - bytes)}, &line))
        return PROXY_HEAD_BAD;
    if (line.method.length == 7 && memcmp(line.method.start, "CONNECT", 7) == 0) {
        request->form = PROXY_CONNECT;
        return endpoint_parse(line.target.start, line.target.length, &request->target) ? PROXY_HEAD_OK : PROXY_HEAD_BAD;
    }
    request->form = PROXY_FORWARD;
    if (!split_target(&line) || !read_authority(&line.authority, &request->target) ||
        !read_framing(header_lines(bytes, request->head_bytes), &request->body))
        return PROXY_HEAD_BAD;
    return PROXY_HEAD_OK;
}

/* --- SOCKS ---------------------------------------------------------------------------------------- */

static enum proxy_head_result parse_greeting(const unsigned char *bytes, size_t length, struct proxy_request *request)
{
    if (length < 2 || length < 2u + bytes[1])
        return PROXY_HEAD_INCOMPLETE;
    request->head_bytes = 2u + bytes[1];
    return memchr(bytes + 2, SOCKS_NO_METHOD, bytes[1]) != NULL ? PROXY_HEAD_GREETING : PROXY_HEAD_GREETING_BAD;
}

/* Copies the destination of a SOCKS request as text. */
static bool read_socks_host(const unsigned char *host, size_t length, unsigned char type, struct endpoint *target)
{
    if (type == SOCKS_IPV4)
        return inet_ntop(AF_INET, host, target->host, sizeof target->host) != NULL;
    if (type == SOCKS_IPV6)
        return inet_ntop(AF_INET6, host, target->host, sizeof target->host) != NULL;
    return endpoint_set_host(target, (const char *)host, length);
}

static enum proxy_head_result parse_socks(const unsigned char *bytes, size_t length, struct proxy_request *request)
{
    size_t host_at = SOCKS_HEAD_BYTES, host_bytes;

    if (length < SOCKS_HEAD_BYTES + 1)
        return PROXY_HEAD_INCOMPLETE;
    if (bytes[0] != SOCKS_VERSION || bytes[1] != SOCKS_CONNECT)
        return PROXY_HEAD_BAD;
    switch (bytes[3]) {
    case SOCKS_IPV4:
        host_bytes = sizeof(struct in_addr);
        break;
    case SOCKS_IPV6:
        host_bytes = sizeof(struct in6_addr);
        break;
    case SOCKS_NAME:
        host_bytes = bytes[host_at++];
        break;
    default:
        return PROXY_HEAD_BAD;
    }
    if (length < host_at + host_bytes + 2)
        return PROXY_HEAD_INCOMPLETE;
    request->head_bytes = host_at + host_bytes + 2;
    request->target.port = (uint16_t)(bytes[host_at + host_bytes] << 8 | bytes[host_at + host_bytes + 1]);
    return read_socks_host(bytes + host_at, host_bytes, bytes[3], &request->target) && request->target.port != 0
               ? PROXY_HEAD_OK
               : PROXY_HEAD_BAD;
}

enum proxy_head_result proxy_request_parse(const char *bytes, size_t length, bool is_greeted,
                                           struct proxy_request *request)
{
    *request = (struct proxy_request){.form = PROXY_CONNECT};
    if (length == 0)
        return PROXY_HEAD_INCOMPLETE;
    if (bytes[0] != SOCKS_VERSION && !is_greeted)
        return parse_http(bytes, length, request);
    request->form = PROXY_SOCKS;
    return is_greeted ? parse_socks((const unsigned char *)bytes, length, request)
                      : parse_greeting((const unsigned char *)bytes, length, request);
}

/* --- what the origin gets ------------------------------------------------------------------------- */

/* Whether a list of tokens, the value of Connection, has the name. */
static bool list_has(struct piece list, const struct piece *name)
{
    struct piece token;

    while (list.length > 0) {
        if (!piece_split(&list, ',', &token)) {
            token = list;
            list.length = 0;
        }
        piece_trim(&token);
        if (token.length == name->length && strncasecmp(token.start, name->start, name->length) == 0)
            return true;
    }
    return false;
}

/* Whether a header is for this hop only: by its name, or because Connection says so. */
static bool is_for_the_hop(struct piece headers, const struct piece *name)
{
    static const char *const names[] = {"Host",       "Connection", "Proxy-Connection", "Proxy-Authorization",
                                        "Keep-Alive", "TE",         "Upgrade"};
    struct piece other, value;
    bool is_sound = true;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (piece_is(name, names[i]))
            return true;
    }
    /* The framing stays, whatever a Connection header claims. */
    if (piece_is(name, "Content-Length") || piece_is(name, "Transfer-Encoding"))
        return false;
    while (next_header(&headers, &other, &value, &is_sound)) {
        if (piece_is(&other, "Connection") && list_has(value, name))
            return true;
    }
    return false;
}

static int add_piece(struct evbuffer *out, const struct piece *piece)
{
    return evbuffer_add(out, piece->start, piece->length);
}

bool proxy_request_rewrite(const struct proxy_request *request, const char *head, struct evbuffer *out)
{
    struct piece headers = header_lines(head, request->head_bytes), rest = headers, name, value;
    struct request_line line;
    bool is_sound = true;

    if (!read_line((struct piece){head, (size_t)(headers.start - 2 - head)}, &line) || !split_target(&line))
        return false;
    if (add_piece(out, &line.method) < 0 ||
        evbuffer_add_printf(out, " %s", line.path.length > 0 && *line.path.start == '/' ? "" : "/") < 0 ||
        add_piece(out, &line.path) < 0 || evbuffer_add_printf(out, " HTTP/1.1\r\nHost: ") < 0 ||
        add_piece(out, &line.authority) < 0 || evbuffer_add_printf(out, "\r\n") < 0)
        return false;
    while (next_header(&rest, &name, &value, &is_sound)) {
        if (is_for_the_hop(headers, &name))
            continue;
        if (add_piece(out, &name) < 0 || evbuffer_add(out, ": ", 2) < 0 || add_piece(out, &value) < 0 ||
            evbuffer_add(out, "\r\n", 2) < 0)
            return false;
    }
    return evbuffer_add_printf(out, "Connection: close\r\n\r\n") >= 0;
}

/* --- the body ------------------------------------------------------------------------------------- */

/* One byte of a line of the chunked framing; false when it breaks it. */
static bool take_line_byte(struct proxy_body *body, char byte)
{
    static const char digits[] = "0123456789abcdef";
    const char *digit = byte == '\0' ? NULL : strchr(digits, tolower((unsigned char)byte));

    if (byte == '\r')
        return true;
    if (++body->line_length > CHUNK_LINE_MAX)
        return false;
    if (body->state == PROXY_BODY_TRAILER || body->in_extension)
        return true;
    if (digit == NULL) {
        body->in_extension = byte == ';' || byte == ' ' || byte == '\t';
        return body->in_extension && body->line_length > 1;
    }
    if (body->bytes > LENGTH_MAX / 16)
        return false;
    body->bytes = body->bytes * 16 + (uint64_t)(digit - digits);
    return true;
}

/* The end of a line of the chunked framing. */
static void end_line(struct proxy_body *body)
{
    bool is_empty = body->line_length == 0;

    body->line_length = 0;
    body->in_extension = false;
    if (body->state == PROXY_BODY_TRAILER)
        body->state = is_empty ? PROXY_BODY_ENDED : PROXY_BODY_TRAILER;
    else if (is_empty)
        body->state = PROXY_BODY_BAD;
    else if (body->bytes == 0)
        body->state = PROXY_BODY_TRAILER;
    else {
        body->state = PROXY_BODY_CHUNK;
        body->bytes += strlen("\r\n");
    }
}

/* Takes bytes that need no look. */
static size_t take_counted(struct proxy_body *body, size_t length)
{
    size_t taken = body->bytes < length ? (size_t)body->bytes : length;

    body->bytes -= taken;
    if (body->bytes == 0)
        body->state = body->state == PROXY_BODY_CHUNK ? PROXY_BODY_SIZE : PROXY_BODY_ENDED;
    return taken;
}

size_t proxy_body_take(struct proxy_body *body, const char *bytes, size_t length)
{
    size_t taken = 0;

    while (taken < length && body->state != PROXY_BODY_ENDED && body->state != PROXY_BODY_BAD) {
        if (body->state == PROXY_BODY_LENGTH || body->state == PROXY_BODY_CHUNK)
            taken += take_counted(body, length - taken);
        else if (bytes[taken++] == '\n')
            end_line(body);
        else if (!take_line_byte(body, bytes[taken - 1]))
            body->state = PROXY_BODY_BAD;
    }
    return taken;
}
