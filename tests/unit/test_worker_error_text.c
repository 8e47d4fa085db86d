/* Error texts for clients and the log: one line, whole characters, no secret (http-api.md 5.6). */
#include "tests/unit/unit.h"
#include "worker/error_text.h"

static void expect_clean(const char *text, const char *wanted)
{
    char *copy = strdup(text);

    error_text_clean(copy);
    assert_string_equal(copy, wanted);
    free(copy);
}

static void test_a_text_becomes_one_line_without_url_credentials(void **state)
{
    (void)state;
    expect_clean("", "");
    expect_clean("plain \xc3\xa9", "plain \xc3\xa9");
    expect_clean("two\r\nlines\x01\x7f", "two  lines  ");
    expect_clean("https://a:b@host/x?q=c@d", "https://host/x?q=c@d");
    expect_clean("http://a@b@host:1 and ftp://u@h", "http://host:1 and ftp://h");
    expect_clean("://@", "://");
    expect_clean("mail me@host", "mail me@host");
}

static void test_a_character_that_was_cut_goes(void **state)
{
    (void)state;
    expect_clean("x\xc3", "x");
    expect_clean("x\xe2\x82", "x");
    expect_clean("x\xf0\x9f\x99", "x");
    expect_clean("\xf0", "");
    expect_clean("x\xe2\x82\xac", "x\xe2\x82\xac");
}

static void test_a_long_text_is_cut(void **state)
{
    char text[ERROR_TEXT_MAX_BYTES * 2];

    (void)state;
    memset(text, 'x', sizeof text);
    memcpy(text + ERROR_TEXT_MAX_BYTES - 2, "\xc3\xa9", 2); /* across the border */
    text[sizeof text - 1] = '\0';
    error_text_clean(text);
    assert_int_equal(strlen(text), ERROR_TEXT_MAX_BYTES - 2);
}

static void expect_hidden(const char *text, const char *secret, const char *wanted)
{
    char *copy = strdup(text);

    error_text_hide(copy, secret);
    assert_string_equal(copy, wanted);
    free(copy);
}

static void test_secrets_are_hidden(void **state)
{
    (void)state;
    expect_hidden("key 12345678 and 1234567812345678.", "12345678", "key *** and ******.");
    expect_hidden("cut 0123456789ab", "0123456789abcdef", "cut ***");
    expect_hidden("cut too early 0123456", "0123456789abcdef", "cut too early 0123456");
    expect_hidden("0123", "0123456789abcdef", "0123");
    expect_hidden("a short one", "short", "a short one");
    expect_hidden("none", NULL, "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_text_becomes_one_line_without_url_credentials),
        cmocka_unit_test(test_a_character_that_was_cut_goes),
        cmocka_unit_test(test_a_long_text_is_cut),
        cmocka_unit_test(test_secrets_are_hidden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
