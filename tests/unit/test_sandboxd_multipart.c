/* multipart: envd's reading of form-data, by table. */
#include "sandboxd/multipart.h"
#include "tests/unit/unit.h"

/* The files of a body. */
struct files {
    size_t count;
    char *names[8];
    struct evbuffer *bytes[8];
};

/* Takes all events that the input gives; the last one. */
static enum multipart_event take(struct multipart *multipart, struct evbuffer *in, struct files *files)
{
    for (;;) {
        size_t length = 0;
        enum multipart_event event = multipart_next(multipart, in, &length);

        switch (event) {
        case MULTIPART_FILE:
            files->names[files->count] = strdup(multipart_filename(multipart));
            files->bytes[files->count++] = evbuffer_new();
            break;
        case MULTIPART_BYTES:
            assert_int_not_equal(length, 0);
            /* A writer may take less than it could. */
            evbuffer_remove_buffer(in, files->bytes[files->count - 1], length > 1 ? length / 2 : length);
            break;
        case MULTIPART_FILE_END:
            break;
        default:
            return event;
        }
    }
}

/* Reads a body in pieces of so many bytes; true when it is whole. */
static bool parse(struct files *files, const char *body, size_t length, size_t piece)
{
    struct multipart *multipart = multipart_new("B");
    struct evbuffer *in = evbuffer_new();
    enum multipart_event event = MULTIPART_MORE;

    *files = (struct files){0};
    for (size_t at = 0; at < length && event == MULTIPART_MORE; at += piece) {
        evbuffer_add(in, body + at, length - at < piece ? length - at : piece);
        event = take(multipart, in, files);
    }
    evbuffer_free(in);
    multipart_free(multipart);
    return event == MULTIPART_END;
}

static void files_free(struct files *files)
{
    for (size_t i = 0; i < files->count; i++) {
        free(files->names[i]);
        evbuffer_free(files->bytes[i]);
    }
}

static void assert_file(struct files *files, size_t index, const char *name, const char *bytes, size_t length)
{
    assert_string_equal(files->names[index], name);
    assert_int_equal(evbuffer_get_length(files->bytes[index]), length);
    if (length > 0)
        assert_memory_equal(evbuffer_pullup(files->bytes[index], -1), bytes, length);
}

/* One header of a part named file, and the filename it must give. */
static void test_a_filename_is_the_full_path_verbatim(void **state)
{
    static const struct {
        const char *header;
        const char *filename;
    } cases[] = {
        {"form-data; name=\"file\"; filename=\"/tmp/x y/\xc3\xa9.txt\"", "/tmp/x y/\xc3\xa9.txt"},
        {"form-data; name=\"file\"; filename=\"/a/%22b%0D.txt\"", "/a/%22b%0D.txt"},
        {"form-data; name=\"file\"; filename=\"a\\\"b\"", "a\"b"},
        {"form-data; name=\"file\"; filename=\"a\\b\\\\c\"", "a\\b\\c"},
        {"form-data; name=\"file\"; filename=\"a;b=c\"", "a;b=c"},
        {"form-data; filename=plain ; name=file", "plain"},
        {"FORM-DATA; NAME=\"file\"; FileName=\"x\"", "x"},
        {"form-data; name=\"file\"; filename=\"n\"; filename*=utf-8''%2Ftmp%2F%C3%A9", "/tmp/\xc3\xa9"},
        {"form-data; name=\"file\"; filename*=utf-8''%2Fa; filename=\"n\"", "/a"},
        {"form-data; name=\"file\"", ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct files files;
        char body[512];
        int length =
            snprintf(body, sizeof body, "--B\r\nX-Other: 1\r\nContent-Disposition: %s\r\n\r\nbytes\r\n--B--\r\n",
                     cases[i].header);

        assert_true(parse(&files, body, (size_t)length, (size_t)length));
        assert_int_equal(files.count, 1);
        assert_file(&files, 0, cases[i].filename, "bytes", 5);
        files_free(&files);
    }
}

static void test_parts_keep_every_byte_and_their_order(void **state)
{
    static const char body[] =
        "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"1\"\r\n\r\n"
        "\0\r\n--Bx\r\n--\r\n\r\n--B \t\r\n"
        "Content-Disposition: form-data; name=\"other\"\r\n\r\npassed over\r\n--B\r\n"
        "Content-Disposition: form-data; name=\"file\"; filename=\"2\"\r\n\r\n\r\n--B--";
    (void)state;
    for (size_t piece = 1; piece <= sizeof body; piece++) {
        struct files files;

        assert_true(parse(&files, body, sizeof body - 1, piece));
        assert_int_equal(files.count, 2);
        assert_file(&files, 0, "1", "\0\r\n--Bx\r\n--\r\n", 13);
        assert_file(&files, 1, "2", "", 0);
        files_free(&files);
    }
}

/* Parts without the CRLF before the next delimiter, without headers, and without anything. */
static void test_parts_may_be_empty(void **state)
{
    static const char body[] = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"1\"\r\n\r\n--B\r\n\r\n"
                               "no headers\r\n--B\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--B--";

    (void)state;
    for (size_t piece = 1; piece <= sizeof body; piece++) {
        struct files files;

        assert_true(parse(&files, body, sizeof body - 1, piece));
        assert_int_equal(files.count, 2);
        assert_file(&files, 0, "1", "", 0);
        assert_file(&files, 1, "", "x", 1);
        files_free(&files);
    }
}

/* A body without the end of a head, or with one that is too long, must not be held for ever. */
static void test_a_head_has_a_limit(void **state)
{
    static const char nested[] = "--B\r\nX: y\r\n--B\r\n\r\n\r\n--B--";
    static char body[20000] = "--B\r\nX: ";
    struct files files;
    struct multipart *multipart = multipart_new("B");
    struct evbuffer *in = evbuffer_new();

    (void)state;
    memset(body + 8, 'x', sizeof body - 8);
    evbuffer_add(in, body, sizeof body);
    assert_int_equal(take(multipart, in, &files), MULTIPART_MALFORMED);
    evbuffer_free(in);
    multipart_free(multipart);
    assert_false(parse(&files, nested, sizeof nested - 1, sizeof nested));
    files_free(&files);
}

/* Every cut of a good body is refused. */
static void test_a_cut_body_is_refused(void **state)
{
    static const char body[] =
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\\\"b\"\r\n\r\nbytes\r\n--B--";

    (void)state;
    for (size_t length = 0; length < sizeof body - 1; length++) {
        struct files files;

        assert_false(parse(&files, body, length, length));
        files_free(&files);
    }
}

static void test_the_boundary_is_found_quoted_or_not(void **state)
{
    static const struct {
        const char *type;
        const char *boundary;
    } cases[] = {
        {"multipart/form-data; boundary=abc", "abc"},
        {"multipart/form-data; Boundary=\"a b\"; charset=x", "a b"},
        {"multipart/form-data; boundary=abc; charset=x", "abc"},
        {"multipart/form-data", NULL},
        {"multipart/form-data; boundary=", NULL},
        {"multipart/form-data; boundary=12345678901234567890123456789012345678901234567890123456789012345678901", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *boundary = multipart_boundary(cases[i].type);

        if (cases[i].boundary == NULL)
            assert_null(boundary);
        else
            assert_string_equal(boundary, cases[i].boundary);
        free(boundary);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_filename_is_the_full_path_verbatim),
        cmocka_unit_test(test_parts_keep_every_byte_and_their_order),
        cmocka_unit_test(test_parts_may_be_empty),
        cmocka_unit_test(test_a_head_has_a_limit),
        cmocka_unit_test(test_a_cut_body_is_refused),
        cmocka_unit_test(test_the_boundary_is_found_quoted_or_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
