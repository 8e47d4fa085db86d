/* Connect envelopes and base64 (e2b.md 0.8). */
#include "tests/unit/unit.h"
#include "worker/connect_rpc.h"

struct seen {
    char text[256]; /* payloads in brackets, the end of stream in braces */
    bool stop;
};

static bool on_envelope(void *context, bool end_of_stream, const char *payload, size_t length)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    snprintf(seen->text + used, sizeof seen->text - used, end_of_stream ? "{%.*s}" : "[%.*s]", (int)length, payload);
    return !seen->stop;
}

#define STREAM "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\0\1x\2\0\0\0\2{}"

static void test_envelopes_arrive_once_however_the_bytes_are_cut(void **state)
{
    static const char bytes[] = STREAM;

    (void)state;
    for (size_t step = 1; step < sizeof bytes; step++) {
        struct envelope_reader reader;
        struct seen seen = {0};

        envelope_reader_init(&reader);
        for (size_t at = 0; at < sizeof bytes - 1; at += step) {
            size_t length = sizeof bytes - 1 - at < step ? sizeof bytes - 1 - at : step;

            assert_int_equal(envelope_reader_feed(&reader, bytes + at, length, on_envelope, &seen), CONNECT_OK);
        }
        assert_string_equal(seen.text, "[abc][][x]{{}}");
        assert_false(envelope_reader_torn(&reader));
        assert_true(reader.ended);
        envelope_reader_release(&reader);
    }
}

static void test_an_empty_envelope_at_the_end_of_a_read_is_not_forgotten(void **state)
{
    struct envelope_reader reader;
    struct seen seen = {0};

    (void)state;
    envelope_reader_init(&reader);
    assert_int_equal(envelope_reader_feed(&reader, "\0\0\0\0\0", 5, on_envelope, &seen), CONNECT_OK);
    assert_string_equal(seen.text, "[]");
    envelope_reader_release(&reader);
}

static const struct {
    const char *promise;
    const char *bytes;
    size_t length;
    enum connect_result result;
} faults[] = {
    {"a compressed envelope is refused", "\1\0\0\0\1x", 6, CONNECT_BAD_FLAGS},
    {"an unknown flag is refused", "\4\0\0\0\1x", 6, CONNECT_BAD_FLAGS},
    {"16 MiB and a byte are refused by the header alone", "\0\1\0\0\1", 5, CONNECT_TOO_LARGE},
    {"16 MiB pass", "\0\1\0\0\0", 5, CONNECT_OK},
    {"an envelope after the end is refused", "\2\0\0\0\2{}\0\0\0\0\0", 12, CONNECT_AFTER_END},
};

static void test_broken_streams_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(faults); i++) {
        struct envelope_reader reader;
        struct seen seen = {0};

        envelope_reader_init(&reader);
        if (envelope_reader_feed(&reader, faults[i].bytes, faults[i].length, on_envelope, &seen) != faults[i].result)
            fail_msg("%s", faults[i].promise);
        assert_int_equal(reader.payload_capacity, 0); /* nothing was allocated for what a header merely claims */
        envelope_reader_release(&reader);
    }
}

static void test_a_torn_envelope_is_told(void **state)
{
    struct envelope_reader reader;
    struct seen seen = {0};

    (void)state;
    envelope_reader_init(&reader);
    assert_int_equal(envelope_reader_feed(&reader, "\0\0\0\0\3ab", 7, on_envelope, &seen), CONNECT_OK);
    assert_true(envelope_reader_torn(&reader));
    envelope_reader_release(&reader);
}

static void test_a_header_is_written_as_it_is_read(void **state)
{
    unsigned char header[CONNECT_HEADER_BYTES];

    (void)state;
    envelope_header(header, 0x01020304);
    assert_memory_equal(header, "\0\1\2\3\4", 5);
}

static const struct {
    const char *text;
    const char *bytes; /* NULL: refused */
    long length;
} encodings[] = {
    {"", "", 0},
    {"aGkK", "hi\n", 3},
    {"YQ==", "a", 1},
    {"YWI=", "ab", 2},
    {"YQ", "a", 1},
    {"YWI", "ab", 2},
    {"_-8=", "\xff\xef", 2},
    {"/+8=", "\xff\xef", 2},
    {"AAAA", "\0\0\0", 3},
    {"a", NULL, -1},
    {"a$==", NULL, -1},
    {"aGkK\n", NULL, -1},
    {" GkK", NULL, -1},
    {"aGkKa", NULL, -1},
    {"YWE====", NULL, -1},
    {"aGkK====", NULL, -1},
    {"YQ==YQ==", NULL, -1},
    {"Y=Fh", NULL, -1},
    {"====", NULL, -1},
};

static void test_base64_is_taken_in_all_the_forms_of_protojson(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(encodings); i++) {
        char out[32];
        long length = base64_decode(encodings[i].text, strlen(encodings[i].text), out);

        if (length != encodings[i].length)
            fail_msg("\"%s\": %ld bytes", encodings[i].text, length);
        if (length > 0)
            assert_memory_equal(out, encodings[i].bytes, (size_t)length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_envelopes_arrive_once_however_the_bytes_are_cut),
        cmocka_unit_test(test_an_empty_envelope_at_the_end_of_a_read_is_not_forgotten),
        cmocka_unit_test(test_broken_streams_are_refused),
        cmocka_unit_test(test_a_torn_envelope_is_told),
        cmocka_unit_test(test_a_header_is_written_as_it_is_read),
        cmocka_unit_test(test_base64_is_taken_in_all_the_forms_of_protojson),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
