/* body_framing: bodies by length and in chunks, in pieces of every size. */
#include "sandboxd/body_framing.h"
#include "tests/unit/unit.h"

/* Feeds text in pieces; what was taken is in body, what is left over in raw. */
static enum body_state feed(bool is_chunked, uint64_t length, const char *text, size_t bytes, size_t piece,
                            struct evbuffer *raw, struct evbuffer *body)
{
    struct body_framing framing;

    body_framing_begin(&framing, is_chunked, length);
    for (size_t at = 0; at < bytes; at += piece) {
        evbuffer_add(raw, text + at, bytes - at < piece ? bytes - at : piece);
        body_framing_take(&framing, raw, body);
    }
    return framing.state;
}

static void assert_holds(struct evbuffer *buffer, const char *text)
{
    assert_int_equal(evbuffer_get_length(buffer), strlen(text));
    if (*text != '\0')
        assert_memory_equal(evbuffer_pullup(buffer, -1), text, strlen(text));
}

static void test_a_body_ends_where_it_says(void **state)
{
    static const struct {
        bool is_chunked;
        uint64_t length;
        const char *text, *body, *rest;
    } cases[] = {
        {false, 0, "next", "", "next"},
        {false, 4, "bodynext", "body", "next"},
        {true, 0, "4\r\nbody\r\n0\r\n\r\nnext", "body", "next"},
        {true, 0, "2;a=\"b\"\r\nbo\r\n00002 \r\ndy\r\n0\r\n\r\nnext", "body", "next"},
        {true, 0, "A\r\n0\r\n\r\n4\r\nab\r\n0\r\nTrailer: x\r\nMore: y\r\n\r\nnext", "0\r\n\r\n4\r\nab", "next"},
        {true, 0, "0\r\n\r\n\r\n", "", "\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        for (size_t piece = 1; piece <= strlen(cases[i].text); piece++) {
            struct evbuffer *raw = evbuffer_new(), *body = evbuffer_new();

            assert_int_equal(
                feed(cases[i].is_chunked, cases[i].length, cases[i].text, strlen(cases[i].text), piece, raw, body),
                BODY_WHOLE);
            assert_holds(body, cases[i].body);
            assert_holds(raw, cases[i].rest);
            evbuffer_free(raw);
            evbuffer_free(body);
        }
    }
}

static void test_a_body_can_be_thrown_away(void **state)
{
    static const char text[] = "4\r\nbody\r\n0\r\n\r\nnext";
    struct evbuffer *raw = evbuffer_new();

    (void)state;
    assert_int_equal(feed(true, 0, text, strlen(text), 3, raw, NULL), BODY_WHOLE);
    assert_holds(raw, "next");
    evbuffer_free(raw);
}

/* A line ends at its CRLF and nowhere else, and is as long as it is however it comes. */
static void test_lines_of_the_framing_are_judged_alike_however_they_come(void **state)
{
    enum { LINE_MAX_BYTES = 4096 };
    static const char nul[] = "4\0x\r\nbody\r\n0\r\n\r\n";
    static const char end[] = "\r\nx\r\n0\r\n\r\n";
    static char text[2 * LINE_MAX_BYTES];

    (void)state;
    for (size_t piece = 1; piece <= sizeof nul; piece++) {
        struct evbuffer *raw = evbuffer_new(), *body = evbuffer_new();

        assert_int_equal(feed(true, 0, nul, sizeof nul - 1, piece, raw, body), BODY_MALFORMED);
        evbuffer_free(raw);
        evbuffer_free(body);
    }
    for (size_t length = LINE_MAX_BYTES - 1; length <= LINE_MAX_BYTES + 2; length++) {
        static const size_t pieces[] = {1, 1000, sizeof text};

        memset(text, 'x', length);
        memcpy(text, "1;", 2);
        memcpy(text + length, end, sizeof end - 1);
        for (size_t i = 0; i < COUNT(pieces); i++) {
            struct evbuffer *raw = evbuffer_new(), *body = evbuffer_new();

            assert_int_equal(feed(true, 0, text, length + sizeof end - 1, pieces[i], raw, body),
                             length <= LINE_MAX_BYTES ? BODY_WHOLE : BODY_MALFORMED);
            evbuffer_free(raw);
            evbuffer_free(body);
        }
    }
}

static void test_a_malformed_chunk_is_told(void **state)
{
    static const char *const cases[] = {
        "\r\n",           "x\r\n",
        "-1\r\n",         "0x4\r\n",
        "4 4\r\n",        "1111111111111111\r\n",
        "4\r\nbodyX\r\n", "4\r\nbody\n\r\n\r\n",
    };
    static char long_line[8192];

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct evbuffer *raw = evbuffer_new(), *body = evbuffer_new();

        assert_int_equal(feed(true, 0, cases[i], strlen(cases[i]), 1, raw, body), BODY_MALFORMED);
        evbuffer_free(raw);
        evbuffer_free(body);
    }
    memset(long_line, '1', sizeof long_line);
    {
        struct evbuffer *raw = evbuffer_new();

        assert_int_equal(feed(true, 0, long_line, sizeof long_line, 100, raw, NULL), BODY_MALFORMED);
        evbuffer_free(raw);
    }
}

static void test_a_trailer_has_an_end(void **state)
{
    struct evbuffer *raw = evbuffer_new();
    struct body_framing framing;

    (void)state;
    body_framing_begin(&framing, true, 0);
    evbuffer_add_printf(raw, "0\r\n");
    for (int i = 0; i < 100; i++)
        evbuffer_add_printf(raw, "X: y\r\n");
    body_framing_take(&framing, raw, NULL);
    assert_int_equal(framing.state, BODY_MALFORMED);
    evbuffer_free(raw);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_body_ends_where_it_says),
        cmocka_unit_test(test_a_body_can_be_thrown_away),
        cmocka_unit_test(test_lines_of_the_framing_are_judged_alike_however_they_come),
        cmocka_unit_test(test_a_malformed_chunk_is_told),
        cmocka_unit_test(test_a_trailer_has_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
