/* The pure parts of /files: names and ranges of downloads, gzip, metadata headers, signatures. */
#include "sandboxd/access.h"
#include "sandboxd/file_headers.h"
#include "sandboxd/file_metadata.h"
#include "sandboxd/gunzip.h"
#include "tests/unit/unit.h"

#include <event2/http.h>
#include <sys/queue.h>
#include <zlib.h>

static void test_a_name_is_bare_quoted_or_encoded(void **state)
{
    static const struct {
        const char *path;
        const char *disposition;
    } cases[] = {
        {"/home/user/a-b_c.txt", "inline; filename=a-b_c.txt"},
        {"name", "inline; filename=name"},
        {"/x/a b.txt", "inline; filename=\"a b.txt\""},
        {"/x/a\"b\\c", "inline; filename=\"a\\\"b\\\\c\""},
        {"/x/\xc3\xa9 %\n", "inline; filename*=utf-8''%C3%A9%20%25%0A"},
        {"/x/", "inline; filename=\"\""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *disposition = file_disposition(cases[i].path);

        assert_string_equal(disposition, cases[i].disposition);
        free(disposition);
    }
}

static void test_a_date_is_as_http_writes_it(void **state)
{
    char text[FILE_DATE_MAX_BYTES];

    (void)state;
    assert_string_equal(file_date(784111777, text), "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void test_a_range_is_cut_to_the_file(void **state)
{
    static const struct {
        const char *header;
        off_t size;
        enum file_range_result result;
        off_t start, length;
    } cases[] = {
        {NULL, 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=0-9", 10, FILE_RANGE_PART, 0, 10},
        {"bytes=9-", 10, FILE_RANGE_PART, 9, 1},
        {"bytes=3-3", 10, FILE_RANGE_PART, 3, 1},
        {"bytes=3-999999999999999999", 10, FILE_RANGE_PART, 3, 7},
        {"bytes=-20", 10, FILE_RANGE_PART, 0, 10},
        {"bytes=-0", 10, FILE_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=10-", 10, FILE_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=0-", 0, FILE_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=-5", 0, FILE_RANGE_UNSATISFIABLE, 0, 0},
        {"bytes=4-3", 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=-", 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=", 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=1-2,4-5", 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=9999999999999999999999-", 10, FILE_RANGE_WHOLE, 0, 0},
        {"bytes=+1-2", 10, FILE_RANGE_WHOLE, 0, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        off_t start = 0, length = 0;

        assert_int_equal(file_range(cases[i].header, cases[i].size, &start, &length), cases[i].result);
        assert_int_equal(start, cases[i].start);
        assert_int_equal(length, cases[i].length);
    }
}

/* Zips as gzip does. */
static size_t zip(const char *bytes, size_t length, unsigned char *out, size_t out_size)
{
    z_stream stream = {
        .next_in = (unsigned char *)bytes, .avail_in = (uInt)length, .next_out = out, .avail_out = (uInt)out_size};

    assert_int_equal(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
    deflateEnd(&stream);
    return out_size - stream.avail_out;
}

static void test_gzip_is_undone_whatever_the_pieces(void **state)
{
    unsigned char zipped[512];
    size_t first = zip("one", 3, zipped, sizeof zipped);
    size_t length = first + zip("two", 3, zipped + first, sizeof zipped - first);

    (void)state;
    for (size_t piece = 1; piece <= length; piece++) {
        struct gunzip *gunzip = gunzip_new();
        struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();

        for (size_t at = 0; at < length; at += piece) {
            evbuffer_add(in, zipped + at, length - at < piece ? length - at : piece);
            assert_int_equal(gunzip_is_whole(gunzip), at == first);
            assert_true(gunzip_step(gunzip, in, out, 100));
        }
        assert_true(gunzip_is_whole(gunzip));
        assert_int_equal(evbuffer_get_length(out), 6);
        assert_memory_equal(evbuffer_pullup(out, -1), "onetwo", 6);
        evbuffer_free(in);
        evbuffer_free(out);
        gunzip_free(gunzip);
    }
}

/* A few bytes that unzip to a lot must not take memory before somebody takes what came out. */
static void test_gzip_stops_at_its_bound(void **state)
{
    enum { BOMB_BYTES = 4 * 1024 * 1024, BOUND_BYTES = 64 * 1024 };
    static char zeros[BOMB_BYTES];
    static unsigned char zipped[BOMB_BYTES / 100];
    struct gunzip *gunzip = gunzip_new();
    struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();
    size_t all = 0;

    (void)state;
    evbuffer_add(in, zipped, zip(zeros, sizeof zeros, zipped, sizeof zipped));
    while (evbuffer_get_length(in) > 0) {
        assert_true(gunzip_step(gunzip, in, out, BOUND_BYTES));
        assert_in_range(evbuffer_get_length(out), 1, 2 * BOUND_BYTES);
        all += evbuffer_get_length(out);
        evbuffer_drain(out, evbuffer_get_length(out));
    }
    assert_int_equal(all, BOMB_BYTES);
    assert_true(gunzip_is_whole(gunzip));
    evbuffer_free(in);
    evbuffer_free(out);
    gunzip_free(gunzip);
}

static void test_what_is_no_gzip_is_refused(void **state)
{
    struct gunzip *gunzip = gunzip_new();
    struct evbuffer *in = evbuffer_new(), *out = evbuffer_new();

    (void)state;
    evbuffer_add(in, "plain text", 10);
    assert_false(gunzip_step(gunzip, in, out, 100));
    evbuffer_free(in);
    evbuffer_free(out);
    gunzip_free(gunzip);
}

static void test_metadata_is_read_from_headers(void **state)
{
    struct evkeyvalq headers;
    const char *problem;
    json_t *metadata;

    (void)state;
    TAILQ_INIT(&headers);
    evhttp_add_header(&headers, "X-Metadata-Key", "first");
    evhttp_add_header(&headers, "x-metadata-KEY", "second");
    evhttp_add_header(&headers, "X-Metadata-", "no key");
    evhttp_add_header(&headers, "X-Meta", "another");
    evhttp_add_header(&headers, "x-metadata-empty", "");
    metadata = file_metadata_parse(&headers, &problem);
    assert_null(problem);
    assert_int_equal(json_object_size(metadata), 2);
    assert_string_equal(json_string_value(json_object_get(metadata, "key")), "first");
    assert_string_equal(json_string_value(json_object_get(metadata, "empty")), "");
    json_decref(metadata);
    evhttp_add_header(&headers, "x-metadata-bad", "\x01");
    assert_null(file_metadata_parse(&headers, &problem));
    assert_non_null(problem);
    evhttp_clear_headers(&headers);
}

/* Prefix, key and value together: 4096 bytes are the last that fit. */
static void test_metadata_has_a_limit(void **state)
{
    static char value[4096];
    size_t room = 4096 - strlen(FILE_METADATA_PREFIX) - 1;

    (void)state;
    for (size_t length = room; length <= room + 1; length++) {
        struct evkeyvalq headers;
        const char *problem;
        json_t *metadata;

        TAILQ_INIT(&headers);
        memset(value, 'v', length);
        value[length] = '\0';
        evhttp_add_header(&headers, "X-Metadata-K", value);
        metadata = file_metadata_parse(&headers, &problem);
        assert_int_equal(metadata != NULL, length == room);
        json_decref(metadata);
        evhttp_clear_headers(&headers);
    }
}

static void test_a_signature_is_the_hash_of_all_its_parts(void **state)
{
    const struct access_signed plain = {.path = "/home/user/f", .operation = "read", .user = "", .token = "secret"};
    struct access_signed changed = plain;
    struct access_signed expiring = plain;

    (void)state;
    /* printf %s '/home/user/f:read::secret' | openssl dgst -sha256 -binary | base64 | tr -d = */
    assert_true(access_signature_fits("v1_NXolcV2uvaQCMSqKToexJfe6WbLCfo1U+0wPdSuqsio", &plain));
    assert_false(access_signature_fits("v1_NXolcV2uvaQCMSqKToexJfe6WbLCfo1U+0wPdSuqsio=", &plain));
    changed.operation = "write";
    assert_false(access_signature_fits("v1_NXolcV2uvaQCMSqKToexJfe6WbLCfo1U+0wPdSuqsio", &changed));
    expiring.user = "user";
    expiring.expiration = "1700000000";
    /* …:read:user:secret:1700000000 */
    assert_true(access_signature_fits("v1_6swlK1in62LgyLI0Y3ZG9vU4MC5n0Va0ryvZTLwPhIw", &expiring));
    assert_false(access_signature_fits("", &plain));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_name_is_bare_quoted_or_encoded),
        cmocka_unit_test(test_a_date_is_as_http_writes_it),
        cmocka_unit_test(test_a_range_is_cut_to_the_file),
        cmocka_unit_test(test_gzip_is_undone_whatever_the_pieces),
        cmocka_unit_test(test_gzip_stops_at_its_bound),
        cmocka_unit_test(test_what_is_no_gzip_is_refused),
        cmocka_unit_test(test_metadata_is_read_from_headers),
        cmocka_unit_test(test_metadata_has_a_limit),
        cmocka_unit_test(test_a_signature_is_the_hash_of_all_its_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
