/* The log: where its lines go, a file that is renamed or full, journald, and floods that are held back. */
#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/log_sink.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MINUTE_MS LOG_LIMIT_PERIOD_MS

static char directory[] = "/tmp/test_log.XXXXXX";
static char path[64], moved[64], errors[64];
static int true_stderr = -1;

static void send_stderr_to(const char *file, int flags)
{
    int fd = open(file, O_WRONLY | O_CREAT | flags, 0600);

    assert_true(fd >= 0);
    assert_true(dup2(fd, STDERR_FILENO) == STDERR_FILENO);
    close(fd);
}

/* Everything in a file; freed with the next call. */
static const char *text_of(const char *file)
{
    static char text[1 << 16];
    int fd = open(file, O_RDONLY);
    ssize_t length = 0;

    if (fd >= 0) {
        length = read(fd, text, sizeof text - 1);
        close(fd);
    }
    text[length > 0 ? length : 0] = '\0';
    return text;
}

static size_t count_lines(const char *file, const char *piece)
{
    size_t count = 0;

    for (const char *at = text_of(file); (at = strstr(at, piece)) != NULL; at += strlen(piece))
        count++;
    return count;
}

static int set_up(void **state)
{
    (void)state;
    true_stderr = dup(STDERR_FILENO);
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/log", directory);
    snprintf(moved, sizeof moved, "%s/log.1", directory);
    snprintf(errors, sizeof errors, "%s/stderr", directory);
    send_stderr_to(errors, O_TRUNC);
    unsetenv("JOURNAL_STREAM");
    log_open("tester");
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    if (!log_use_file(""))
        return -1;
    dup2(true_stderr, STDERR_FILENO);
    close(true_stderr);
    unlink(path);
    unlink(moved);
    unlink(errors);
    rmdir(directory);
    memcpy(strrchr(directory, '.'), ".XXXXXX", 7);
    return 0;
}

/* --- where lines go -------------------------------------------------------------------------------------- */

static void test_lines_go_to_stderr_with_time_program_and_pid(void **state)
{
    char wanted[64];

    (void)state;
    log_info("hello %d", 1);
    log_debug("not at this level");
    snprintf(wanted, sizeof wanted, "Z tester[%d] info: hello 1\n", (int)getpid());
    assert_non_null(strstr(text_of(errors), wanted));
    assert_int_equal(count_lines(errors, "\n"), 1);
}

static void test_a_file_gets_the_lines_and_stderr_only_errors(void **state)
{
    struct stat status;

    (void)state;
    umask(0);
    assert_true(log_use_file(path));
    log_info("quiet");
    log_error("loud");
    assert_int_equal(count_lines(path, "tester["), 2);
    assert_int_equal(count_lines(errors, "\n"), 1);
    assert_int_equal(count_lines(errors, "error: loud\n"), 1);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0640);
}

static const char *longer_than_a_path(void)
{
    static char text[PATH_MAX + 2] = "/";

    memset(text + 1, 'x', sizeof text - 2);
    return text;
}

static void test_a_file_that_cannot_be_opened_changes_nothing(void **state)
{
    (void)state;
    assert_false(log_use_file("/nonexistent/log"));
    assert_int_equal(count_lines(errors, "setting log_file: /nonexistent/log: No such file or directory"), 1);
    assert_false(log_use_file(longer_than_a_path()));
    assert_true(log_use_file(path));
    assert_false(log_use_file(directory));
    log_info("still here");
    assert_int_equal(count_lines(path, "still here"), 1);
}

static void test_a_check_tells_what_an_open_would(void **state)
{
    char inside[96];

    (void)state;
    assert_int_equal(log_sink_check("/nonexistent/log"), ENOENT);
    assert_int_equal(log_sink_check(directory), EISDIR);
    assert_int_equal(log_sink_check(path), 0);
    assert_int_equal(access(path, F_OK), -1); /* it makes nothing */
    log_error("into %s", errors);
    snprintf(inside, sizeof inside, "%s/log", errors); /* below what is no directory */
    assert_int_equal(log_sink_check(inside), ENOTDIR);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(log_sink_check(path), ENXIO); /* nobody reads it */
}

static void test_a_renamed_file_is_opened_again(void **state)
{
    (void)state;
    assert_true(log_use_file(path));
    log_info("one");
    assert_int_equal(rename(path, moved), 0);
    log_info("two");
    log_reopen();
    log_info("three");
    assert_int_equal(count_lines(moved, "one\n") + count_lines(moved, "two\n"), 2);
    assert_int_equal(count_lines(path, "\n"), 1);
    assert_int_equal(count_lines(path, "three\n"), 1);
}

static void test_a_file_that_cannot_be_opened_again_stays_open(void **state)
{
    char aside[sizeof directory + 8];

    (void)state;
    assert_true(log_use_file(path));
    snprintf(aside, sizeof aside, "%s.aside", directory);
    assert_int_equal(rename(directory, aside), 0);
    log_reopen();
    log_info("still here");
    assert_int_equal(rename(aside, directory), 0);
    assert_int_equal(count_lines(path, "cannot open "), 1);
    assert_int_equal(count_lines(path, "log again: No such file or directory\n"), 1);
    assert_int_equal(count_lines(path, "still here\n"), 1);
}

static void test_stderr_that_is_appended_to_a_file_is_opened_again(void **state)
{
    (void)state;
    send_stderr_to(path, O_APPEND);
    log_open("tester");
    assert_int_equal(rename(path, moved), 0);
    log_open("again"); /* after a fork: the name it had first counts */
    log_reopen();
    log_info("three");
    assert_int_equal(count_lines(moved, "\n"), 0);
    assert_int_equal(count_lines(path, "again["), 1);
}

static void test_journald_gets_priorities_only_on_its_own_stream(void **state)
{
    struct stat status;
    char stream[64];

    (void)state;
    assert_int_equal(fstat(STDERR_FILENO, &status), 0);
    setenv("JOURNAL_STREAM", "1:1", 1); /* a shell below a service: inherited, and another's */
    log_open("tester");
    log_warn("plain");
    snprintf(stream, sizeof stream, "%ju:%ju", (uintmax_t)status.st_dev, (uintmax_t)status.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_open("tester");
    log_warn("marked");
    assert_true(log_is_journal());
    assert_true(log_use_file(path));
    log_error("both");
    assert_int_equal(count_lines(errors, "] warn: plain\n"), 1);
    assert_int_equal(count_lines(errors, "\n<4>tester: marked\n"), 1);
    assert_int_equal(count_lines(errors, "\n<3>tester: both\n"), 1);
    assert_int_equal(count_lines(path, "] error: both\n"), 1);
    unsetenv("JOURNAL_STREAM");
}

static void test_a_line_is_one_line_whatever_is_in_it(void **state)
{
    (void)state;
    log_info("%s", "one\n2026-01-01T00:00:00.000Z forged[1] error: two\x1b[31m\x7f");
    assert_int_equal(count_lines(errors, "\n"), 1);
    assert_int_equal(count_lines(errors, "one 2026-01-01T00:00:00.000Z forged[1] error: two [31m \n"), 1);
}

static void test_a_long_line_is_cut_and_ended(void **state)
{
    static char text[8192];

    (void)state;
    memset(text, 'x', sizeof text - 1);
    log_info("%s", text);
    assert_true(strlen(text_of(errors)) <= 4096);
    assert_int_equal(count_lines(errors, "xxx\n"), 1);
}

/* --- a full disk ------------------------------------------------------------------------------------------ */

static void limit_files_to(rlim_t bytes)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_lines_lost_on_a_full_disk_are_counted_and_said_once(void **state)
{
    (void)state;
    assert_true(log_use_file(path));
    log_info("first %0400d", 0);                /* more than stderr will hold, which the limit bounds as well */
    limit_files_to(strlen(text_of(path)) + 10); /* the next one is cut short */
    for (int i = 0; i < 5; i++)
        log_info("lost %d", i);
    limit_files_to(RLIM_INFINITY);
    log_info("second");
    log_info("third");
    assert_int_equal(count_lines(path, "0\n"), 1);
    assert_int_equal(count_lines(path, "\n20"), 4); /* what was torn is a line of its own */
    assert_int_equal(count_lines(path, "second\n"), 1);
    assert_int_equal(count_lines(path, "5 lines of the log are lost: File too large\n"), 1);
    assert_int_equal(count_lines(errors, "cannot write the log, its lines are lost: File too large\n"), 1);
    assert_int_equal(count_lines(errors, "\n"), 2);
}

static void test_a_line_torn_by_another_is_ended_first(void **state)
{
    struct log_sink sink = {.fd = -1};
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

    (void)state;
    assert_true(fd >= 0 && write(fd, "half", 4) == 4);
    close(fd);
    assert_true(log_sink_open(&sink, path));
    sink.lost = 2;
    assert_int_equal(log_sink_write(&sink, "whole\n", 6), LOG_WRITTEN_AGAIN);
    sink.lost = 0;
    assert_int_equal(log_sink_write(&sink, "next\n", 5), LOG_WRITTEN);
    assert_string_equal(text_of(path), "half\nwhole\nnext\n");
    log_sink_close(&sink);
}

static void test_a_pipe_nobody_reads_loses_lines_instead_of_waiting(void **state)
{
    struct log_sink sink = {.fd = -1};
    char block[4096];
    int reader, written = 0;

    (void)state;
    memset(block, 'x', sizeof block);
    assert_int_equal(mkfifo(path, 0600), 0);
    reader = open(path, O_RDONLY | O_NONBLOCK);
    assert_true(reader >= 0);
    assert_true(log_sink_open(&sink, path));
    while (log_sink_write(&sink, block, sizeof block) == LOG_WRITTEN)
        assert_true(++written < 1000);
    assert_int_equal(sink.error, EAGAIN);
    assert_int_equal(sink.lost, 1);
    log_sink_close(&sink);
    close(reader);
}

/* --- floods ----------------------------------------------------------------------------------------------- */

static void flood(struct log_limit *limit, int lines, int64_t now_ms)
{
    for (int i = 0; i < lines; i++) {
        if (log_limit_allows(limit, now_ms))
            log_warn("peer %d", i);
    }
}

static void test_a_flood_is_held_back_and_counted(void **state)
{
    static struct log_limit limit = {.level = LOG_LEVEL_WARN, .like = "peer %d"};

    (void)state;
    flood(&limit, LOG_LIMIT_LINES + 7, 1000);
    assert_int_equal(count_lines(errors, "\n"), LOG_LIMIT_LINES);
    flood(&limit, 2, 1000 + MINUTE_MS - 1);
    log_limit_tick(1000 + MINUTE_MS - 1);
    assert_int_equal(count_lines(errors, "\n"), LOG_LIMIT_LINES);
    flood(&limit, 1, 1000 + MINUTE_MS);
    assert_int_equal(count_lines(errors, "warn: 9 more like this within a minute: peer %d\n"), 1);
    assert_int_equal(count_lines(errors, "\n"), LOG_LIMIT_LINES + 2);
    flood(&limit, LOG_LIMIT_LINES, 1000 + MINUTE_MS); /* the first of this minute was the one before */
    assert_int_equal(count_lines(errors, "\n"), 2 * LOG_LIMIT_LINES + 1);
    log_limit_tick(1000 + 2 * MINUTE_MS);
}

static void test_what_was_held_back_is_said_without_another_line(void **state)
{
    static struct log_limit one = {.level = LOG_LEVEL_WARN, .like = "one"},
                            two = {.level = LOG_LEVEL_INFO, .like = "two"};

    (void)state;
    flood(&one, LOG_LIMIT_LINES + 1, 5000);
    flood(&two, LOG_LIMIT_LINES + 2, 6000);
    log_limit_tick(5000 + MINUTE_MS);
    assert_int_equal(count_lines(errors, "warn: 1 more like this within a minute: one\n"), 1);
    assert_int_equal(count_lines(errors, "within a minute: two"), 0);
    log_limit_tick(6000 + MINUTE_MS);
    log_limit_tick(6000 + MINUTE_MS);
    assert_int_equal(count_lines(errors, "info: 2 more like this within a minute: two\n"), 1);
    assert_int_equal(count_lines(errors, "more like this"), 2);
}

static void test_what_is_not_logged_is_not_counted(void **state)
{
    static struct log_limit limit = {.level = LOG_LEVEL_INFO, .like = "quiet"};

    (void)state;
    log_set_level(LOG_LEVEL_WARN);
    flood(&limit, LOG_LIMIT_LINES * 2, 1000);
    log_limit_tick(1000 + MINUTE_MS);
    assert_int_equal(count_lines(errors, "\n"), 0);
}

static void test_each_place_has_a_limit_of_its_own(void **state)
{
    (void)state;
    for (int i = 0; i < LOG_LIMIT_LINES + 5; i++) {
        log_info_limited("one %d", i);
        log_info_limited("other");
        log_error("ours");
    }
    assert_int_equal(count_lines(errors, "one "), LOG_LIMIT_LINES);
    assert_int_equal(count_lines(errors, "other\n"), LOG_LIMIT_LINES);
    assert_int_equal(count_lines(errors, "ours\n"), LOG_LIMIT_LINES + 5);
    log_limit_tick(monotonic_ms() + MINUTE_MS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Cut between characters; bytes that are no UTF-8 are cut where it is due. */
static void test_outside_text_is_cut_between_characters(void **state)
{
    static const char euro[] = "\xe2\x82\xac";
    char text[LOG_CLEAN_MAX_BYTES + sizeof euro], clean[LOG_CLEAN_BUFFER];

    (void)state;
    for (size_t begin = LOG_CLEAN_MAX_BYTES - 3; begin <= LOG_CLEAN_MAX_BYTES; begin++) {
        size_t whole = begin == LOG_CLEAN_MAX_BYTES - 3 ? LOG_CLEAN_MAX_BYTES : begin;

        memset(text, 'x', sizeof text);
        memcpy(text + begin, euro, 3);
        log_clean(text, sizeof text, clean);
        assert_int_equal(strlen(clean), whole + 3);
        assert_memory_equal(clean, text, whole);
        assert_string_equal(clean + whole, "...");
    }
    memset(text, 0x80, sizeof text);
    assert_int_equal(strlen(log_clean(text, sizeof text, clean)), LOG_CLEAN_MAX_BYTES + 3);
}

/* --- what is said ---------------------------------------------------------------------------------------- */

static void test_a_panic_is_told_and_leaves_a_core(void **state)
{
    pid_t child = fork();
    int status;

    (void)state;
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        log_panic("no state %d", 7);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
    assert_int_equal(count_lines(errors, "] panic: no state 7\n"), 1);
}

static void test_the_names_of_levels(void **state)
{
    enum log_level level = LOG_LEVEL_INFO;

    (void)state;
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("panic", &level)); /* not to be chosen */
    assert_false(log_level_parse("", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
}

static void test_text_of_others_is_cut_and_cannot_move_the_cursor(void **state)
{
    char out[LOG_CLEAN_BUFFER], much[LOG_CLEAN_BUFFER];
    size_t length;

    (void)state;
    assert_string_equal(log_clean("a\n\x1b[2J\x7f", 7, out), "a\\x0a\\x1b[2J\\x7f");
    memset(much, '\r', sizeof much);
    length = strlen(log_clean(much, sizeof much, out));
    assert_in_range(length, 4, sizeof out - 1);
    assert_string_equal(out + length - 7, "\\x0d...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_lines_go_to_stderr_with_time_program_and_pid),
        TEST(test_a_file_that_cannot_be_opened_again_stays_open),
        TEST(test_a_panic_is_told_and_leaves_a_core),
        TEST(test_the_names_of_levels),
        TEST(test_text_of_others_is_cut_and_cannot_move_the_cursor),
        TEST(test_a_file_gets_the_lines_and_stderr_only_errors),
        TEST(test_a_file_that_cannot_be_opened_changes_nothing),
        TEST(test_a_check_tells_what_an_open_would),
        TEST(test_a_renamed_file_is_opened_again),
        TEST(test_stderr_that_is_appended_to_a_file_is_opened_again),
        TEST(test_journald_gets_priorities_only_on_its_own_stream),
        TEST(test_a_line_is_one_line_whatever_is_in_it),
        TEST(test_outside_text_is_cut_between_characters),
        TEST(test_a_long_line_is_cut_and_ended),
        TEST(test_lines_lost_on_a_full_disk_are_counted_and_said_once),
        TEST(test_a_line_torn_by_another_is_ended_first),
        TEST(test_a_pipe_nobody_reads_loses_lines_instead_of_waiting),
        TEST(test_a_flood_is_held_back_and_counted),
        TEST(test_what_was_held_back_is_said_without_another_line),
        TEST(test_what_is_not_logged_is_not_counted),
        TEST(test_each_place_has_a_limit_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
