/*
 * What a client sends first: however it is cut, the guard says the same and finds the same head; libevent, which gets
 * the bytes behind it, understands every head that was let in, and just so; a body that was let in is one to sandboxd's
 * reader of chunks too. What goes to the access log is one line.
 */
#include "sandboxd/body_framing.h"
#include "tests/fuzz/fuzz.h"
#include "worker/access_line.h"
#include "worker/auth.h"
#include "worker/cors.h"
#include "worker/peers.h"
#include "worker/request_guard.h"
#include "worker/utf8.h"

#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <jansson.h>
#include <strings.h>

#define BODY_LIMIT_BYTES 4096

/* libevent's own, which it exports for its tests; ours is the version of Debian 12. */
int evhttp_parse_firstline_(struct evhttp_request *request, struct evbuffer *buffer);
int evhttp_parse_headers_(struct evhttp_request *request, struct evbuffer *buffer);
#define ALL_DATA_READ 1

/* What the guard made of an input. */
struct seen {
    enum guard_verdict verdict;
    size_t head_bytes; /* 0: there is no whole head */
    size_t body_bytes; /* behind it, of a complete message */
    bool is_chunked;
    struct request_head head;
};

/* Feeds in pieces, one when pieces is NULL. The guard may change what it is given. */
static struct seen feed(char *bytes, size_t size, struct fuzz_pieces *pieces)
{
    struct request_guard guard;
    struct seen seen = {.verdict = GUARD_MORE};
    size_t at = 0;

    request_guard_init(&guard, BODY_LIMIT_BYTES);
    while (at < size) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at, taken = 0;

        seen.verdict = request_guard_feed(&guard, bytes + at, piece, &taken);
        FUZZ_CHECK(taken <= piece);
        at += taken;
        if (seen.verdict == GUARD_HEAD) {
            FUZZ_CHECK(seen.head_bytes == 0 && guard.position == at);
            seen.head_bytes = at;
            seen.is_chunked = guard.chunked;
            request_guard_head(&guard, bytes, &seen.head);
            continue;
        }
        if (seen.verdict != GUARD_MORE && seen.verdict != GUARD_COMPLETE)
            break;
        FUZZ_CHECK(taken == piece);
    }
    /* The end of a head may be the end of the message. */
    if (seen.verdict == GUARD_HEAD && at == size) {
        size_t taken;

        seen.verdict = request_guard_feed(&guard, bytes + size, 0, &taken);
        FUZZ_CHECK(taken == 0);
    }
    if (seen.verdict == GUARD_COMPLETE)
        seen.body_bytes = guard.body_bytes;
    return seen;
}

static void check_same(const struct seen *one, const struct seen *other)
{
    FUZZ_CHECK(one->verdict == other->verdict && one->head_bytes == other->head_bytes);
    FUZZ_CHECK(one->body_bytes == other->body_bytes);
    if (one->head_bytes == 0)
        return;
    for (size_t i = 0; i < GUARD_FIELDS; i++) {
        const struct span *left = &one->head.fields[i], *right = &other->head.fields[i];

        FUZZ_CHECK((left->bytes == NULL) == (right->bytes == NULL) && left->length == right->length);
        FUZZ_CHECK(left->bytes == NULL || right->bytes == NULL || memcmp(left->bytes, right->bytes, left->length) == 0);
    }
}

/* --- libevent's view -------------------------------------------------------------------------------------- */

static void compare_field(struct evhttp_request *request, const char *name, struct span ours)
{
    const char *theirs = evhttp_find_header(evhttp_request_get_input_headers(request), name);

    FUZZ_CHECK((theirs != NULL) == (ours.bytes != NULL));
    FUZZ_CHECK(theirs == NULL || (strlen(theirs) == ours.length && memcmp(theirs, ours.bytes, ours.length) == 0));
}

/* libevent looks for a body by this word alone. */
static void compare_coding(struct evhttp_request *request, bool is_chunked)
{
    const char *coding = evhttp_find_header(evhttp_request_get_input_headers(request), "Transfer-Encoding");

    FUZZ_CHECK((coding != NULL && strcasecmp(coding, "chunked") == 0) == is_chunked);
}

static void compare_with_libevent(const char *bytes, const struct seen *seen)
{
    struct evhttp_request *request = evhttp_request_new(NULL, NULL);
    struct evbuffer *in = evbuffer_new();

    FUZZ_CHECK(request != NULL && in != NULL);
    request->kind = EVHTTP_REQUEST;
    evbuffer_add(in, bytes, seen->head_bytes);
    /*
     * It may refuse what it is given, a method it does not know; what it takes it must take as we did. Of a target with
     * a host it asks its server, which is not here.
     */
    if (*seen->head.target.bytes == '/' && evhttp_parse_firstline_(request, in) == ALL_DATA_READ) {
        const char *uri = evhttp_request_get_uri(request);

        FUZZ_CHECK(strlen(uri) == seen->head.target.length && memcmp(uri, seen->head.target.bytes, strlen(uri)) == 0);
        FUZZ_CHECK(evhttp_parse_headers_(request, in) == ALL_DATA_READ && evbuffer_get_length(in) == 0);
        compare_coding(request, seen->is_chunked);
        compare_field(request, "Host", seen->head.fields[GUARD_FIELD_HOST]);
        compare_field(request, "Authorization", seen->head.fields[GUARD_FIELD_AUTHORIZATION]);
        compare_field(request, "Origin", seen->head.fields[GUARD_FIELD_ORIGIN]);
        compare_field(request, "Expect", seen->head.fields[GUARD_FIELD_EXPECT]);
    }
    evbuffer_free(in);
    evhttp_request_free(request);
}

/* A complete message's body by another reader: it ends at the same byte. */
static void check_body(const char *bytes, size_t size, const struct seen *seen)
{
    struct evbuffer *raw = evbuffer_new(), *body = evbuffer_new();
    struct body_framing framing;

    FUZZ_CHECK(raw != NULL && body != NULL && seen->body_bytes <= BODY_LIMIT_BYTES);
    evbuffer_add(raw, bytes + seen->head_bytes, size - seen->head_bytes);
    body_framing_begin(&framing, seen->is_chunked, seen->body_bytes);
    body_framing_take(&framing, raw, body);
    /* It wants CRLF, and has other bounds for what nobody reads: it may refuse, but never see another end. */
    if (framing.state == BODY_WHOLE)
        FUZZ_CHECK(evbuffer_get_length(raw) == 0 && evbuffer_get_length(body) == seen->body_bytes);
    evbuffer_free(raw);
    evbuffer_free(body);
}

/* --- what is decided by the head --------------------------------------------------------------------------- */

/* A client behind proxies has a name fit for a log, whatever they say of it. */
static void check_client(const struct request_head *head)
{
    static struct peers *all, *one;
    static const struct peer peer = {.name = "192.0.2.1"};
    char name[PEER_NAME_MAX_BYTES];

    if (all == NULL) {
        all = peers_new("*");
        one = peers_new("192.0.2.1, 192.0.2.2");
    }
    for (int i = 0; i < 2; i++) {
        peers_client(i == 0 ? all : one, &peer, head->fields[GUARD_FIELD_FORWARDED_FOR], name);
        FUZZ_CHECK(*name != '\0' && memchr(name, '\0', sizeof name) != NULL);
        for (const char *c = name; *c != '\0'; c++)
            FUZZ_CHECK(*c > ' ' && *c <= '~');
    }
}

/* What a preflight is told are whole header lines. */
static void check_preflight(const struct request_head *head)
{
    static struct cors *cors;
    const struct cors_preflight preflight = {.origin = head->fields[GUARD_FIELD_ORIGIN],
                                             .method = head->fields[GUARD_FIELD_WANTED_METHOD],
                                             .headers = head->fields[GUARD_FIELD_WANTED_HEADERS],
                                             .private_network = head->fields[GUARD_FIELD_WANTED_PRIVATE_NETWORK]};
    struct evbuffer *headers = evbuffer_new();
    char body[CORS_BODY_MAX_BYTES], *line;
    int status;

    if (cors == NULL)
        cors = cors_new("https://x, https://y");
    status = cors_answer_preflight(cors, &preflight, headers, body);
    FUZZ_CHECK((status == 200) == (strcmp(body, "OK") == 0));
    FUZZ_CHECK(status != 200 || span_is(preflight.origin, "https://x") || span_is(preflight.origin, "https://y"));
    while ((line = evbuffer_readln(headers, NULL, EVBUFFER_EOL_CRLF_STRICT)) != NULL) {
        FUZZ_CHECK(strncmp(line, "Access-Control-", 15) == 0 || strcmp(line, "Vary: Origin") == 0);
        FUZZ_CHECK(strpbrk(line, "\r\n") == NULL);
        free(line);
    }
    FUZZ_CHECK(evbuffer_get_length(headers) == 0);
    evbuffer_free(headers);
}

static void check_auth(const struct request_head *head)
{
    static struct auth auth;
    struct span given = head->fields[GUARD_FIELD_AUTHORIZATION];

    if (auth.key_count == 0)
        auth_init(&auth, "0123456789abcdef0123456789abcdef", "");
    if (auth_check(&auth, given) == AUTH_OK)
        FUZZ_CHECK(memmem(given.bytes, given.length, "0123456789abcdef0123456789abcdef", 32) != NULL);
}

/* --- the log ---------------------------------------------------------------------------------------------- */

static void check_access_line(const struct request_head *head)
{
    struct access_facts facts = {.client = "192.0.2.1", .status = 200, .state = "", .error_code = ""};
    char line[ACCESS_LINE_MAX_BYTES];
    size_t length;
    json_t *parsed;

    access_text_set(&facts.method, head->method);
    access_text_set(&facts.path, access_path(head->target));
    access_text_set(&facts.user_agent, head->fields[GUARD_FIELD_USER_AGENT]);
    length = access_line_format(&facts, ACCESS_LOG_COMMON, line);
    FUZZ_CHECK(length > 0 && line[length - 1] == '\n');
    for (size_t i = 0; i + 1 < length; i++)
        FUZZ_CHECK(line[i] >= ' ' && line[i] <= '~');
    length = access_line_format(&facts, ACCESS_LOG_JSON, line);
    FUZZ_CHECK(length > 0 && memchr(line, '\n', length) == line + length - 1 && utf8_is_valid(line, length));
    parsed = json_loadb(line, length, 0, NULL);
    FUZZ_CHECK(json_is_object(parsed));
    json_decref(parsed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    char *whole = fuzz_text(data, size), *cut = fuzz_text(data, size);
    struct seen seen = feed(whole, size, NULL), seen_cut = feed(cut, size, &pieces);

    check_same(&seen, &seen_cut);
    FUZZ_CHECK(memcmp(whole, cut, size) == 0);
    if (seen.head_bytes > 0) {
        compare_with_libevent(whole, &seen);
        check_access_line(&seen.head);
        check_client(&seen.head);
        check_preflight(&seen.head);
        check_auth(&seen.head);
    }
    if (seen.verdict == GUARD_COMPLETE)
        check_body(whole, size, &seen);
    free(whole);
    free(cut);
    return 0;
}
