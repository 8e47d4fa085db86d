/* multipart: envd's reading of form-data, by table. */
#include "sandboxd/multipart.h"
#include "tests/unit/unit.h"

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
        struct multipart multipart;
        char body[512];
        int length =
            snprintf(body, sizeof body, "--B\r\nX-Other: 1\r\nContent-Disposition: %s\r\n\r\nbytes\r\n--B--\r\n",
                     cases[i].header);

        assert_true(multipart_parse(&multipart, "B", body, (size_t)length));
        assert_int_equal(multipart.count, 1);
        assert_string_equal(multipart.files[0].filename, cases[i].filename);
        assert_int_equal(multipart.files[0].length, 5);
        assert_memory_equal(multipart.files[0].bytes, "bytes", 5);
        multipart_free(&multipart);
    }
}

static void test_parts_keep_every_byte_and_their_order(void **state)
{
    static const char body[] =
        "preamble\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"1\"\r\n\r\n"
        "\0\r\n--Bx\r\n--\r\n\r\n--B \t\r\n"
        "Content-Disposition: form-data; name=\"other\"\r\n\r\npassed over\r\n--B\r\n"
        "Content-Disposition: form-data; name=\"file\"; filename=\"2\"\r\n\r\n\r\n--B--";
    struct multipart multipart;

    (void)state;
    assert_true(multipart_parse(&multipart, "B", body, sizeof body - 1));
    assert_int_equal(multipart.count, 2);
    assert_string_equal(multipart.files[0].filename, "1");
    assert_int_equal(multipart.files[0].length, 13);
    assert_memory_equal(multipart.files[0].bytes, "\0\r\n--Bx\r\n--\r\n", 13);
    assert_int_equal(multipart.files[1].length, 0);
    multipart_free(&multipart);
}

/* Every cut of a good body is refused and none reads beyond its end (the sanitizers watch). */
static void test_a_cut_body_is_refused(void **state)
{
    static const char body[] =
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\\\"b\"\r\n\r\nbytes\r\n--B--";

    (void)state;
    for (size_t length = 0; length < sizeof body - 1; length++) {
        struct multipart multipart;
        char *cut = malloc(length + 1);

        assert_non_null(cut);
        memcpy(cut, body, length);
        assert_false(multipart_parse(&multipart, "B", cut, length));
        multipart_free(&multipart);
        free(cut);
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
        cmocka_unit_test(test_a_cut_body_is_refused),
        cmocka_unit_test(test_the_boundary_is_found_quoted_or_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
