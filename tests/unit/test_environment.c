/* The environment in effect: the process first, then `.env`, which is looked at again when asked. */
#include "common/dotenv.h"
#include "common/environment.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOG_MAX_BYTES = 8192 };

/* A project directory, and what was logged meanwhile. */
static char directory[] = "/tmp/sandstorm-environment-XXXXXX";
static char path[sizeof directory + 16];
static int log_fd, terminal_fd;

static void write_file(const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void begin_log(void)
{
    log_fd = memfd_create("log", MFD_CLOEXEC);
    terminal_fd = dup(STDERR_FILENO);
    assert_true(log_fd >= 0 && terminal_fd >= 0);
    dup2(log_fd, STDERR_FILENO);
}

static void end_log(char text[static LOG_MAX_BYTES])
{
    ssize_t length = pread(log_fd, text, LOG_MAX_BYTES - 1, 0);

    dup2(terminal_fd, STDERR_FILENO);
    close(terminal_fd);
    close(log_fd);
    assert_true(length >= 0);
    text[length] = '\0';
}

static size_t count_of(const char *text, const char *wanted)
{
    size_t count = 0;

    for (const char *at = strstr(text, wanted); at != NULL; at = strstr(at + 1, wanted))
        count++;
    return count;
}

static void expect_variable(struct environment_file *file, const char *name, const char *wanted)
{
    struct environment *environment = environment_current(file);
    const char *value = environment_get(environment, name);

    if (wanted == NULL)
        assert_null(value);
    else
        assert_string_equal(value != NULL ? value : "(unset)", wanted);
    environment_unref(environment);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/.env", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static struct environment_file *open_file(void)
{
    struct environment_file *file = environment_file_new(directory);

    assert_non_null(file);
    return file;
}

/* Until a change could not be mistaken for none: from then on a look is one stat(2). False if that never comes. */
static bool settles(struct environment_file *file)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};

    for (int i = 0; i < 2000; i++) {
        struct environment *one = environment_current(file);
        struct environment *other = environment_current(file);
        bool is_same = one == other;

        environment_unref(one);
        environment_unref(other);
        if (is_same)
            return true;
        nanosleep(&pause, NULL);
    }
    return false;
}

static void test_the_process_wins_and_empty_is_a_value_of_its_own(void **state)
{
    struct environment_file *file;
    struct environment *environment;

    (void)state;
    write_file("BOTH=file\nFILE=file\nEMPTY=file\nBLANK=\n");
    setenv("BOTH", "process", 1);
    setenv("EMPTY", "", 1);
    file = open_file();
    environment = environment_current(file);
    assert_string_equal(environment_get(environment, "BOTH"), "process");
    assert_string_equal(environment_get(environment, "FILE"), "file");
    assert_string_equal(environment_get(environment, "EMPTY"), "");
    assert_string_equal(environment_get(environment, "BLANK"), "");
    assert_null(environment_get(environment, "NONE"));
    assert_string_equal(environment_value(environment, "FILE"), "file");
    assert_null(environment_value(environment, "EMPTY"));
    assert_null(environment_value(environment, "BLANK"));
    assert_null(environment_value(environment, "NONE"));
    environment_unref(environment);
    environment_file_free(file);
    unsetenv("BOTH");
    unsetenv("EMPTY");
}

static void test_every_change_of_the_file_counts_at_once(void **state)
{
    struct environment_file *file;

    (void)state;
    unlink(path);
    file = open_file();
    expect_variable(file, "A", NULL);
    write_file("A=1\n");
    expect_variable(file, "A", "1");
    write_file("A=2\n"); /* the same size, in the same instant */
    expect_variable(file, "A", "2");
    write_file("B=3\n");
    expect_variable(file, "A", NULL);
    expect_variable(file, "B", "3");
    unlink(path);
    expect_variable(file, "B", NULL);
    write_file("B=4\n");
    assert_true(settles(file));
    expect_variable(file, "B", "4");
    write_file("B=5\n");
    expect_variable(file, "B", "5");
    environment_file_free(file);
}

static void test_a_state_outlives_the_file_and_its_changes(void **state)
{
    struct environment_file *file;
    struct environment *before, *after;

    (void)state;
    write_file("A=1\n");
    file = open_file();
    before = environment_ref(environment_current(file));
    environment_unref(before);
    write_file("A=22\n");
    after = environment_current(file);
    environment_file_free(file);
    assert_string_equal(environment_get(before, "A"), "1");
    assert_string_equal(environment_get(after, "A"), "22");
    environment_unref(before);
    environment_unref(after);
    environment_unref(NULL);
}

static void test_what_cannot_be_read_leaves_the_last_good_values(void **state)
{
    char text[LOG_MAX_BYTES];
    struct environment_file *file;

    (void)state;
    write_file("A=1\n");
    file = open_file();
    begin_log();
    unlink(path);
    mkdir(path, 0700);
    expect_variable(file, "A", "1");
    expect_variable(file, "A", "1");
    rmdir(path);
    write_file("A=2\n");
    expect_variable(file, "A", "2");
    assert_int_equal(truncate(path, DOTENV_TEXT_MAX_BYTES + 1), 0);
    expect_variable(file, "A", "2");
    expect_variable(file, "A", "2");
    assert_int_equal(truncate(path, DOTENV_TEXT_MAX_BYTES + 2), 0);
    expect_variable(file, "A", "2");
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect_variable(file, "A", "2");
    unlink(path);
    assert_int_equal(symlink(".env", path), 0);
    expect_variable(file, "A", "2");
    expect_variable(file, "A", "2");
    unlink(path);
    expect_variable(file, "A", NULL);
    end_log(text);
    environment_file_free(file);
    assert_int_equal(count_of(text, "the values read before stay in use\n"), 5);
    assert_int_equal(count_of(text, ".env: not a regular file; "), 2);
    assert_int_equal(count_of(text, ".env: File too large; "), 2);
    assert_int_equal(count_of(text, ".env: Too many levels of symbolic links; "), 1);
}

static void test_bad_lines_are_told_by_number_once_and_not_without_end(void **state)
{
    char text[LOG_MAX_BYTES];
    struct environment_file *file;

    (void)state;
    write_file("A=1\nsecret value\n");
    begin_log();
    file = open_file();
    expect_variable(file, "A", "1");
    expect_variable(file, "A", "1");
    write_file("A=2\n=secret\n=\n=\n=\n=\n=\n=\n=\n=\n=\n=\n=\n");
    expect_variable(file, "A", "2");
    end_log(text);
    environment_file_free(file);
    assert_int_equal(count_of(text, "not understood, skipped\n"), 1 + 10 + 1);
    assert_int_equal(count_of(text, ".env:2: not understood"), 2);
    assert_int_equal(count_of(text, ".env:11: not understood"), 1);
    assert_int_equal(count_of(text, ".env: 2 more lines not understood"), 1);
    assert_int_equal(count_of(text, "secret"), 0);
}

static void test_the_file_can_be_switched_off(void **state)
{
    static const struct {
        const char *value;
        bool is_off;
    } switches[] = {{"1", true},   {"true", true},   {"T", true}, {"YES", true}, {"y", true},  {"0", false},
                    {"no", false}, {"false", false}, {"", false}, {"11", false}, {"on", false}};

    (void)state;
    write_file("A=1\n");
    for (size_t i = 0; i < COUNT(switches); i++) {
        struct environment_file *file;

        setenv("PYTHON_DOTENV_DISABLED", switches[i].value, 1);
        file = open_file();
        expect_variable(file, "A", switches[i].is_off ? NULL : "1");
        environment_file_free(file);
    }
    unsetenv("PYTHON_DOTENV_DISABLED");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_process_wins_and_empty_is_a_value_of_its_own),
        cmocka_unit_test(test_every_change_of_the_file_counts_at_once),
        cmocka_unit_test(test_a_state_outlives_the_file_and_its_changes),
        cmocka_unit_test(test_what_cannot_be_read_leaves_the_last_good_values),
        cmocka_unit_test(test_bad_lines_are_told_by_number_once_and_not_without_end),
        cmocka_unit_test(test_the_file_can_be_switched_off),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
