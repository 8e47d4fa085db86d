/* Line assembly (http-api.md 5.3). */
#include "tests/unit/unit.h"
#include "worker/line_buffer.h"

struct seen {
    char text[256]; /* each line in brackets */
    size_t count;
    size_t stop_at; /* 0: never */
};

static bool on_line(void *context, const char *line, size_t length)
{
    struct seen *seen = context;
    size_t used = strlen(seen->text);

    if (length < 64)
        snprintf(seen->text + used, sizeof seen->text - used, "[%.*s]", (int)length, line);
    seen->count++;
    return seen->count != seen->stop_at;
}

static void test_lines_arrive_once_however_the_bytes_are_cut(void **state)
{
    static const char bytes[] = "one\n\ntwo\r\nthree\rthree\nrest";

    (void)state;
    for (size_t step = 1; step < sizeof bytes; step++) {
        struct line_buffer buffer;
        struct seen seen = {0};

        line_buffer_init(&buffer, 100);
        for (size_t at = 0; at < sizeof bytes - 1; at += step) {
            size_t length = sizeof bytes - 1 - at < step ? sizeof bytes - 1 - at : step;

            assert_int_equal(line_buffer_feed(&buffer, bytes + at, length, on_line, &seen), LINE_OK);
        }
        assert_string_equal(seen.text, "[one][][two\r][three\rthree]");
        assert_int_equal(line_buffer_finish(&buffer, on_line, &seen), LINE_OK);
        assert_string_equal(seen.text, "[one][][two\r][three\rthree][rest]");
        assert_int_equal(line_buffer_finish(&buffer, on_line, &seen), LINE_OK);
        assert_int_equal(seen.count, 5);
        line_buffer_release(&buffer);
    }
}

static void test_the_limit_is_exact_in_one_piece_and_in_two(void **state)
{
    struct line_buffer buffer;
    struct seen seen = {0};

    (void)state;
    line_buffer_init(&buffer, 4);
    assert_int_equal(line_buffer_feed(&buffer, "1234\n", 5, on_line, &seen), LINE_OK);
    assert_int_equal(line_buffer_feed(&buffer, "12", 2, on_line, &seen), LINE_OK);
    assert_int_equal(line_buffer_feed(&buffer, "34\n", 3, on_line, &seen), LINE_OK);
    assert_int_equal(seen.count, 2);
    assert_int_equal(line_buffer_feed(&buffer, "12345\n", 6, on_line, &seen), LINE_TOO_LONG);
    line_buffer_release(&buffer);
    line_buffer_init(&buffer, 4);
    assert_int_equal(line_buffer_feed(&buffer, "123", 3, on_line, &seen), LINE_OK);
    assert_int_equal(line_buffer_feed(&buffer, "45", 2, on_line, &seen), LINE_TOO_LONG);
    line_buffer_release(&buffer);
    assert_int_equal(seen.count, 2);
}

static void test_a_callback_can_stop_the_feed(void **state)
{
    struct line_buffer buffer;
    struct seen seen = {.stop_at = 2};

    (void)state;
    line_buffer_init(&buffer, 100);
    assert_int_equal(line_buffer_feed(&buffer, "a\nb\nc\n", 6, on_line, &seen), LINE_STOPPED);
    assert_string_equal(seen.text, "[a][b]");
    line_buffer_release(&buffer);
}

static void test_a_big_line_does_not_keep_its_memory(void **state)
{
    struct line_buffer buffer;
    struct seen seen = {0};
    static char big[100000];

    (void)state;
    memset(big, 'x', sizeof big);
    line_buffer_init(&buffer, 1 << 20);
    assert_int_equal(line_buffer_feed(&buffer, big, sizeof big, on_line, &seen), LINE_OK);
    assert_true(buffer.capacity >= sizeof big);
    assert_int_equal(line_buffer_feed(&buffer, "\n", 1, on_line, &seen), LINE_OK);
    assert_int_equal(buffer.capacity, 0);
    assert_int_equal(seen.count, 1);
    line_buffer_release(&buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_arrive_once_however_the_bytes_are_cut),
        cmocka_unit_test(test_the_limit_is_exact_in_one_piece_and_in_two),
        cmocka_unit_test(test_a_callback_can_stop_the_feed),
        cmocka_unit_test(test_a_big_line_does_not_keep_its_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
