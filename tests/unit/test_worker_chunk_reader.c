/* Bodies in chunks: each example whole, byte by byte, and cut at every place. */
#include "tests/unit/unit.h"
#include "worker/chunk_reader.h"

static struct {
    char bytes[4096];
    size_t length;
} body;

static bool take(void *context, const char *bytes, size_t length)
{
    (void)context;
    assert_true(length > 0 && body.length + length < sizeof body.bytes);
    memcpy(body.bytes + body.length, bytes, length);
    body.length += length;
    return true;
}

static const struct {
    const char *text;
    const char *body;
    enum chunk_state state;
} examples[] = {
    {"", "", CHUNK_SIZE},
    {"5\r\nhello\r\n0\r\n\r\n", "hello", CHUNK_WHOLE},
    {"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", CHUNK_WHOLE},
    {"0005\r\nhello\r\n00\r\n\r\n", "hello", CHUNK_WHOLE},
    {"A\r\n0123456789\r\nb\r\nabcdefghijk\r\n0\r\n\r\n", "0123456789abcdefghijk", CHUNK_WHOLE},
    {"5;name=\"value\"\r\nhello\r\n0;x\r\n\r\n", "hello", CHUNK_WHOLE},
    {"5 \r\nhello\r\n0\r\n\r\n", "hello", CHUNK_WHOLE},
    {"5\nhello\n0\n\n", "hello", CHUNK_WHOLE},
    {"0\r\nTrailer: x\r\nOther: y\r\n\r\n", "", CHUNK_WHOLE},
    {"0\r\n\r\nmore that is nobody's", "", CHUNK_WHOLE},
    {"7\r\na\r\nb\r\nc\r\n0\r\n\r\n", "a\r\nb\r\nc", CHUNK_WHOLE},
    {"5\r\nhel", "hel", CHUNK_BYTES},
    {"5\r\nhello", "hello", CHUNK_END},
    {"5\r\nhello\r\n", "hello", CHUNK_SIZE},
    {"5\r\nhello\r\n0\r\n", "hello", CHUNK_TRAILER},
    {"5\r\nhello\r\n0\r\nTrailer: x", "hello", CHUNK_TRAILER},
    {"\r\n", "", CHUNK_BROKEN},
    {"x\r\n", "", CHUNK_BROKEN},
    {"-5\r\n", "", CHUNK_BROKEN},
    {"0x5\r\n", "", CHUNK_BROKEN},
    {" 5\r\n", "", CHUNK_BROKEN},
    {"5,\r\nhello", "", CHUNK_BROKEN},
    {"5\r\nhellox\r\n", "hello", CHUNK_BROKEN},
    {"5\r\nhello\r\r\n", "hello", CHUNK_BROKEN},
    {"FFFFFFFFFFFFFFFF\r\n", "", CHUNK_BROKEN},
    {"0000000000000005\r\n", "", CHUNK_BROKEN},
};

static void check(size_t example, const struct chunk_reader *reader, const char *how)
{
    if (reader->state != examples[example].state || body.length != strlen(examples[example].body) ||
        memcmp(body.bytes, examples[example].body, body.length) != 0)
        fail_msg("%s %s: state %d, body \"%.*s\"", examples[example].text, how, reader->state, (int)body.length,
                 body.bytes);
}

static void test_examples(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(examples); i++) {
        const char *text = examples[i].text;
        size_t length = strlen(text);
        struct chunk_reader reader = {0};

        body.length = 0;
        assert_true(chunk_reader_feed(&reader, text, length, take, NULL));
        check(i, &reader, "whole");
        reader = (struct chunk_reader){0};
        body.length = 0;
        for (size_t at = 0; at < length; at++)
            assert_true(chunk_reader_feed(&reader, text + at, 1, take, NULL));
        check(i, &reader, "byte by byte");
        for (size_t cut = 0; cut <= length; cut++) {
            reader = (struct chunk_reader){0};
            body.length = 0;
            assert_true(chunk_reader_feed(&reader, text, cut, take, NULL));
            assert_true(chunk_reader_feed(&reader, text + cut, length - cut, take, NULL));
            check(i, &reader, "in two");
        }
    }
}

/* Lines that never end are bounded. */
static void test_endless_lines(void **state)
{
    static const char *const beginnings[] = {"5;", "0\r\n"};

    (void)state;
    for (size_t i = 0; i < COUNT(beginnings); i++) {
        struct chunk_reader reader = {0};
        int bytes = 0;

        assert_true(chunk_reader_feed(&reader, beginnings[i], strlen(beginnings[i]), take, NULL));
        while (reader.state != CHUNK_BROKEN && bytes++ < 20000)
            assert_true(chunk_reader_feed(&reader, "x", 1, take, NULL));
        assert_in_range(bytes, 16000, 17000);
    }
}

static bool refuse(void *context, const char *bytes, size_t length)
{
    int *pieces = context;

    (void)bytes;
    (void)length;
    ++*pieces;
    return false;
}

static void test_who_takes_no_more_gets_no_more(void **state)
{
    static const char text[] = "1\r\na\r\n1\r\nb\r\n0\r\n\r\n";
    struct chunk_reader reader = {0};
    int pieces = 0;

    (void)state;
    assert_false(chunk_reader_feed(&reader, text, sizeof text - 1, refuse, &pieces));
    assert_int_equal(pieces, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_endless_lines),
        cmocka_unit_test(test_who_takes_no_more_gets_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
