/* The PROXY protocol: every header of the specification, at every cut, and what only looks like one. */
#include "tests/unit/unit.h"
#include "worker/proxy_header.h"

#define V2          "\r\n\r\n\0\r\nQUIT\n"
#define BYTES(text) text, sizeof text - 1

static const struct {
    const char *bytes;
    size_t length;
    const char *name;
} good[] = {
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n"), "192.0.2.1"},
    {BYTES("PROXY TCP6 2001:db8::1 ::1 0 65535\r\n"), "2001:db8::1"},
    {BYTES("PROXY TCP6 ::ffff:192.0.2.7 ::1 1 1\r\n"), "192.0.2.7"},
    {BYTES("PROXY UNKNOWN\r\n"), ""},
    {BYTES("PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"), ""},
    {BYTES(V2 "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb"), "192.0.2.1"},
    {BYTES(V2 "\x21\x11\0\x0f\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb\4\0\0"), "192.0.2.1"}, /* with an extension */
    {BYTES(V2 "\x21\x21\0\x24\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1\0\1\0\1"),
     "2001:db8::1"},
    {BYTES(V2 "\x20\0\0\0"), ""},
    {BYTES(V2 "\x20\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb"), ""}, /* LOCAL: the addresses do not count */
    {BYTES(V2 "\x21\0\0\0"), ""},                                         /* UNSPEC */
    {BYTES(V2 "\x21\x31\0\1x"), ""},                                      /* unix */
};

static const struct {
    const char *bytes;
    size_t length;
} bad[] = {
    {BYTES("GET / HTTP/1.1\r\n")},
    {BYTES("\x16\3\1")},
    {BYTES("PROXX")},
    {BYTES("PROXY \r\n")},
    {BYTES("PROXY TCP4\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1  198.51.100.1 56324 443\r\n")},
    {BYTES("PROXY TCP4  192.0.2.1 198.51.100.1 443\r\n")}, /* as many words, but one is empty */
    {BYTES("PROXY TCP4 192.0.2.1  198.51.100.1 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1  443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 443 \r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 56324 65536\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 -1 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 01 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1 198.51.100.1 1 443\n")},
    {BYTES("PROXY TCP4 192.0.2.256 198.51.100.1 1 443\r\n")},
    {BYTES("PROXY TCP4 2001:db8::1 198.51.100.1 1 443\r\n")},
    {BYTES("PROXY TCP6 192.0.2.1 ::1 1 443\r\n")},
    {BYTES("PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n")},
    {BYTES("PROXY TCP4 192.0.2.1\0 198.51.100.1 1 443\r\n")},
    {BYTES(V2 "\x11\x11\0\x0c")},
    {BYTES(V2 "\x22\x11\0\x0c")},
    {BYTES(V2 "\x21\x11\0\x0b\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1")}, /* too short for its family */
    {BYTES(V2 "\x21\x41\0\0")},
    {BYTES(V2 "\x21\x13\0\x0c\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb")},
    {BYTES(V2 "\x21\x11\xff\xff")},
};

/* In a block of exactly that size, so that a sanitizer sees a byte too many. */
static enum proxy_header_result read_exact(const char *bytes, size_t available, size_t *length, char *name)
{
    char *copy = malloc(available > 0 ? available : 1);
    enum proxy_header_result result;

    memcpy(copy, bytes, available);
    result = proxy_header_read(copy, available, length, name);
    free(copy);
    return result;
}

static void test_headers_name_the_client_and_end_where_they_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(good); i++) {
        char name[INET6_ADDRSTRLEN];
        char followed[256];
        size_t length;

        memcpy(followed, good[i].bytes, good[i].length);
        memcpy(followed + good[i].length, "GET ", 4);
        for (size_t cut = 0; cut < good[i].length; cut++) {
            if (read_exact(good[i].bytes, cut, &length, name) != PROXY_HEADER_MORE)
                fail_msg("header %zu, %zu bytes", i, cut);
        }
        assert_int_equal(read_exact(followed, good[i].length + 4, &length, name), PROXY_HEADER_DONE);
        assert_int_equal(length, good[i].length);
        assert_string_equal(name, good[i].name);
    }
}

static void test_what_is_no_header_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(bad); i++) {
        char name[INET6_ADDRSTRLEN];
        size_t length;

        if (read_exact(bad[i].bytes, bad[i].length, &length, name) != PROXY_HEADER_BAD)
            fail_msg("text %zu was taken", i);
    }
}

static void test_a_line_without_an_end_is_refused_in_time(void **state)
{
    char line[PROXY_HEADER_MAX_BYTES], name[INET6_ADDRSTRLEN];
    size_t length;

    (void)state;
    memset(line, 'x', sizeof line);
    memcpy(line, "PROXY UNKNOWN ", 14);
    assert_int_equal(read_exact(line, 106, &length, name), PROXY_HEADER_MORE);
    assert_int_equal(read_exact(line, 107, &length, name), PROXY_HEADER_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_name_the_client_and_end_where_they_end),
        cmocka_unit_test(test_what_is_no_header_is_refused),
        cmocka_unit_test(test_a_line_without_an_end_is_refused_in_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
