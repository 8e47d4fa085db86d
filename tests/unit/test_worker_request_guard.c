/* The rules of http-api.md 2.3, as raw requests and what becomes of them; each is fed whole and byte by byte. */
#include "tests/unit/unit.h"
#include "worker/request_guard.h"

#define LIMIT_BYTES 16
#define GET         "GET /health HTTP/1.1\r\nHost: x\r\n"
#define POST        "POST /query HTTP/1.1\r\nHost: x\r\n"

static const struct {
    const char *promise;
    const char *bytes;
    size_t length; /* 0: strlen */
    enum guard_verdict verdict;
} requests[] = {
    {"a request without a body is complete at its empty line", GET "\r\n", 0, GUARD_COMPLETE},
    {"bare LF ends lines as evhttp takes it", "GET / HTTP/1.1\nHost: x\n\n", 0, GUARD_COMPLETE},
    {"HTTP/1.0 needs no Host", "GET / HTTP/1.0\r\n\r\n", 0, GUARD_COMPLETE},
    {"an unfinished head is not complete", GET, 0, GUARD_MORE},
    {"a body is counted", POST "Content-Length: 3\r\n\r\nabc", 0, GUARD_COMPLETE},
    {"a body cut short is not complete", POST "Content-Length: 3\r\n\r\nab", 0, GUARD_MORE},
    {"a chunked body ends with its last chunk", POST "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 0,
     GUARD_COMPLETE},
    {"the coding's name has no case", POST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 0, GUARD_COMPLETE},
    {"extensions and trailers of chunks are skipped",
     POST "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\nT: v\r\nU:\r\n\r\n", 0, GUARD_COMPLETE},
    {"a trailer without a colon is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nT\r\n\r\n", 0, GUARD_BAD},
    {"a trailer without a name is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\n: v\r\n\r\n", 0, GUARD_BAD},
    {"a folded trailer is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nT: v\r\n w\r\n\r\n", 0, GUARD_BAD},
    {"a blank in a trailer's name is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nT : v\r\n\r\n", 0,
     GUARD_BAD},
    {"a control byte in a trailer is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nT: \1\r\n\r\n", 0,
     GUARD_BAD},
    {"blanks around a value do not count", POST "Content-Length: \t 3 \r\n\r\nabc", 0, GUARD_COMPLETE},
    {"bytes after the message are pipelining", GET "\r\nG", 0, GUARD_PIPELINED},
    {"bytes after a body are pipelining", POST "Content-Length: 1\r\n\r\nab", 0, GUARD_PIPELINED},
    {"bytes after the last chunk are pipelining", POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nX", 0,
     GUARD_PIPELINED},
    {"two lengths are refused", POST "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", 0, GUARD_BAD},
    {"length and coding together are refused", POST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 0,
     GUARD_BAD},
    {"a coding but chunked is refused", POST "Transfer-Encoding: identity\r\n\r\n", 0, GUARD_BAD},
    {"chunked twice is refused", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0, GUARD_BAD},
    {"a list of codings is refused", POST "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, GUARD_BAD},
    {"a coding in HTTP/1.0 is refused", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 0, GUARD_BAD},
    {"a blank before the colon is refused", POST "Transfer-Encoding : chunked\r\n\r\n", 0, GUARD_BAD},
    {"a folded line is refused", GET "A: b\r\n c\r\n\r\n", 0, GUARD_BAD},
    {"a name that is no token is refused", GET "A@B: c\r\n\r\n", 0, GUARD_BAD},
    {"an empty name is refused", GET ": c\r\n\r\n", 0, GUARD_BAD},
    {"CR alone is refused", GET "A: b\rC: d\r\n\r\n", 0, GUARD_BAD},
    {"NUL in a value is refused", GET "A: \0\r\n\r\n", sizeof(GET "A: \0\r\n\r\n") - 1, GUARD_BAD},
    {"NUL in the target is refused", "GET /\0 HTTP/1.1\r\n", sizeof("GET /\0 HTTP/1.1\r\n") - 1, GUARD_BAD},
    {"an encoded NUL in the target is refused", "GET /a%00 HTTP/1.1\r\n", 0, GUARD_BAD},
    {"an encoded NUL after a percent sign is refused", "GET /?a=%%00 HTTP/1.1\r\n", 0, GUARD_BAD},
    {"a percent sign and zeros apart are fine", "GET /%010%0x HTTP/1.0\r\n\r\n", 0, GUARD_COMPLETE},
    {"a byte above ASCII in the target is refused", "GET /\xc3\xa9 HTTP/1.1\r\n", 0, GUARD_BAD},
    {"a missing Host is refused", "GET / HTTP/1.1\r\n\r\n", 0, GUARD_BAD},
    {"two Hosts are refused", GET "Host: y\r\n\r\n", 0, GUARD_BAD},
    {"HTTP/2.0 is refused", "GET / HTTP/2.0\r\n", 0, GUARD_BAD},
    {"HTTP/1.2 is refused", "GET / HTTP/1.2\r\n", 0, GUARD_BAD},
    {"a request line without version is refused", "GET /\r\n", 0, GUARD_BAD},
    {"a length that is no number is refused", POST "Content-Length: 3x\r\n\r\n", 0, GUARD_BAD},
    {"a signed length is refused", POST "Content-Length: +3\r\n\r\n", 0, GUARD_BAD},
    {"an empty length is refused", POST "Content-Length:\r\n\r\n", 0, GUARD_BAD},
    {"a length beyond 64 bits is refused", POST "Content-Length: 99999999999999999999\r\n\r\n", 0, GUARD_BAD},
    {"a chunk size that is no number is refused", POST "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 0, GUARD_BAD},
    {"an empty chunk size is refused", POST "Transfer-Encoding: chunked\r\n\r\n\r\n", 0, GUARD_BAD},
    {"LF alone after a chunk size is refused", POST "Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n", 0,
     GUARD_BAD},
    {"LF alone after a chunk's extension is refused", POST "Transfer-Encoding: chunked\r\n\r\n1;a\na\r\n0\r\n\r\n", 0,
     GUARD_BAD},
    {"LF alone after a chunk is refused", POST "Transfer-Encoding: chunked\r\n\r\n1\r\na\n0\r\n\r\n", 0, GUARD_BAD},
    {"LF alone after a trailer is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\nT: v\n\r\n", 0, GUARD_BAD},
    {"LF alone at the end of the trailers is refused", POST "Transfer-Encoding: chunked\r\n\r\n0\r\n\n", 0, GUARD_BAD},
    {"a control byte in a chunk's extension is refused", POST "Transfer-Encoding: chunked\r\n\r\n1;a\1\r\n", 0,
     GUARD_BAD},
    {"a tab in a chunk's extension passes", POST "Transfer-Encoding: chunked\r\n\r\n1;\ta=\"\xc3\"\r\na\r\n0\r\n\r\n",
     0, GUARD_COMPLETE},
    {"CR inside a chunk size is refused", POST "Transfer-Encoding: chunked\r\n\r\n1\r5\r\n", 0, GUARD_BAD},
    {"a chunk longer than its size is refused", POST "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", 0, GUARD_BAD},
    {"a body at the limit passes", POST "Content-Length: 16\r\n\r\n", 0, GUARD_MORE},
    {"a declared body over the limit is refused at once", POST "Content-Length: 17\r\n\r\n", 0, GUARD_TOO_LARGE},
    {"a chunked body over the limit is refused when it passes it",
     POST "Transfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n9\r\n", 0, GUARD_TOO_LARGE},
    {"a huge chunk size does not wrap", POST "Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", 0,
     GUARD_TOO_LARGE},
};

/* Goes on over the end of the head, as a client does whose request is let in. */
static enum guard_verdict feed(const char *text, size_t length, size_t step)
{
    struct request_guard guard;
    enum guard_verdict verdict = GUARD_MORE;
    size_t at = 0, taken;
    char *bytes = malloc(length);

    memcpy(bytes, text, length);

    request_guard_init(&guard, LIMIT_BYTES);
    do {
        verdict = request_guard_feed(&guard, bytes + at, length - at < step ? length - at : step, &taken);
        if (verdict != GUARD_MORE && verdict != GUARD_COMPLETE && verdict != GUARD_HEAD)
            break;
        at += taken;
    } while (at < length || verdict == GUARD_HEAD);
    free(bytes);
    return verdict;
}

static void test_each_request_gets_its_verdict_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(requests); i++) {
        size_t length = requests[i].length > 0 ? requests[i].length : strlen(requests[i].bytes);

        for (size_t step = 1; step <= length; step++) {
            enum guard_verdict verdict = feed(requests[i].bytes, length, step);

            if (verdict != requests[i].verdict)
                fail_msg("%s: verdict %d, wanted %d, in steps of %zu", requests[i].promise, (int)verdict,
                         (int)requests[i].verdict, step);
        }
    }
}

/* A head with `count` fields and one that pads the header block to `bytes` bytes (0: as it is). */
static char *head_of(size_t target, size_t count, size_t bytes)
{
    char *text = NULL;
    size_t size = 0, start;
    FILE *out = open_memstream(&text, &size);

    fputs("GET /", out);
    for (size_t i = 0; i < target; i++)
        fputc('a', out);
    fputs(" HTTP/1.1\r\n", out);
    fflush(out);
    start = size;
    fputs("Host: x\r\n", out);
    for (size_t i = 1; i < count; i++)
        fprintf(out, "F%zu: v\r\n", i);
    if (bytes > 0) {
        fputs("P: ", out);
        fflush(out);
        for (size_t i = size - start; i < bytes - strlen("\r\n\r\n"); i++)
            fputc('p', out);
        fputs("\r\n", out);
    }
    fputs("\r\n", out);
    fclose(out);
    return text;
}

static void expect_head(size_t target, size_t count, size_t bytes, enum guard_verdict wanted)
{
    char *text = head_of(target, count, bytes);

    assert_int_equal(feed(text, strlen(text), strlen(text)), wanted);
    free(text);
}

static void test_bounds_of_the_head_are_exact(void **state)
{
    size_t longest = GUARD_REQUEST_LINE_MAX_BYTES - strlen("GET / HTTP/1.1");

    (void)state;
    expect_head(longest, 1, 0, GUARD_COMPLETE);
    expect_head(longest + 1, 1, 0, GUARD_LONG_URI);
    expect_head(0, GUARD_HEADERS_MAX_COUNT, 0, GUARD_COMPLETE);
    expect_head(0, GUARD_HEADERS_MAX_COUNT + 1, 0, GUARD_HEADERS);
    expect_head(0, 1, GUARD_HEADERS_MAX_BYTES, GUARD_COMPLETE);
    expect_head(0, 1, GUARD_HEADERS_MAX_BYTES + 1, GUARD_HEADERS);
    expect_head(0, 50, GUARD_HEADERS_MAX_BYTES, GUARD_COMPLETE);
    expect_head(0, 50, GUARD_HEADERS_MAX_BYTES + 1, GUARD_HEADERS);
}

static void test_extensions_of_chunks_become_blanks(void **state)
{
    char bytes[] = POST "Transfer-Encoding: chunked\r\n\r\n1;a=\"b\"\r\n;\r\n0;c\r\n\r\n";
    struct request_guard guard;
    size_t at = 0, taken;

    (void)state;
    request_guard_init(&guard, LIMIT_BYTES);
    while (bytes[at] != '\0' && request_guard_feed(&guard, bytes + at, 1, &taken) != GUARD_BAD)
        at += taken;
    assert_string_equal(bytes, POST "Transfer-Encoding: chunked\r\n\r\n1      \r\n;\r\n0  \r\n\r\n");
}

/* evhttp strips blanks before a value, but no tabs: it would answer an Expect by itself, with a 417 in HTML. */
static void test_tabs_before_a_value_become_blanks(void **state)
{
    char bytes[] = POST "Transfer-Encoding:\t \tchunked\r\nX:\ta\tb\t\r\nEmpty:\t\r\n\r\n0\r\nT:\tx\r\n\r\n";
    struct request_guard guard;
    size_t at = 0, taken;

    (void)state;
    request_guard_init(&guard, LIMIT_BYTES);
    while (bytes[at] != '\0' && request_guard_feed(&guard, bytes + at, 1, &taken) != GUARD_BAD)
        at += taken;
    assert_string_equal(bytes, POST "Transfer-Encoding:   chunked\r\nX: a\tb\t\r\nEmpty: \r\n\r\n0\r\nT:\tx\r\n\r\n");
}

static void expect_span(struct span span, const char *text)
{
    if (text == NULL)
        assert_null(span.bytes);
    else if (!span_is(span, text))
        fail_msg("'%.*s' is not '%s'", (int)span.length, span.bytes, text);
}

static void test_the_head_is_told_apart_before_its_body_is_judged(void **state)
{
    char bytes[] = "POST /a?b=c HTTP/1.1\r\nHost: h:1\r\norigin:\t https://x y \t\r\nExpect:\r\n"
                   "AUTHORIZATION: Bearer t\r\nauthorization: second\r\nContent-Length: 99\r\n\r\nbody";
    struct request_guard guard;
    struct request_head head;
    size_t at = 0, taken;

    (void)state;
    request_guard_init(&guard, LIMIT_BYTES);
    while (request_guard_feed(&guard, bytes + at, 1, &taken) == GUARD_MORE)
        at += taken;
    assert_int_equal(at + 1, sizeof bytes - 1 - strlen("body"));
    assert_int_equal(guard.position, at + 1);
    request_guard_head(&guard, bytes, &head);
    expect_span(head.method, "POST");
    expect_span(head.target, "/a?b=c");
    expect_span(head.fields[GUARD_FIELD_HOST], "h:1");
    expect_span(head.fields[GUARD_FIELD_ORIGIN], "https://x y");
    expect_span(head.fields[GUARD_FIELD_EXPECT], "");
    expect_span(head.fields[GUARD_FIELD_AUTHORIZATION], "Bearer t");
    expect_span(head.fields[GUARD_FIELD_FORWARDED_FOR], NULL);
    assert_true(request_guard_has_body(&guard));
    assert_int_equal(request_guard_feed(&guard, NULL, 0, &taken), GUARD_TOO_LARGE);
}

static void test_verdicts_have_the_statuses_of_the_contract(void **state)
{
    (void)state;
    assert_int_equal(guard_status(GUARD_BAD), 400);
    assert_int_equal(guard_status(GUARD_TOO_LARGE), 413);
    assert_int_equal(guard_status(GUARD_LONG_URI), 414);
    assert_int_equal(guard_status(GUARD_HEADERS), 431);
    assert_int_equal(guard_status(GUARD_COMPLETE), 0);
    assert_int_equal(guard_status(GUARD_PIPELINED), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_request_gets_its_verdict_however_it_is_cut),
        cmocka_unit_test(test_bounds_of_the_head_are_exact),
        cmocka_unit_test(test_extensions_of_chunks_become_blanks),
        cmocka_unit_test(test_tabs_before_a_value_become_blanks),
        cmocka_unit_test(test_the_head_is_told_apart_before_its_body_is_judged),
        cmocka_unit_test(test_verdicts_have_the_statuses_of_the_contract),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
