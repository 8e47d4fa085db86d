/* The pid file: whole, ours while we live, a leftover afterwards. The other master is a forked process. */
#include "master/pid_file.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[] = "/tmp/sandstorm-pid-XXXXXX";
static char path[64];

static void put(const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static void assert_holds(pid_t pid)
{
    char text[32] = "", wanted[32];
    FILE *in = fopen(path, "r");

    assert_non_null(in);
    assert_non_null(fgets(text, sizeof text, in));
    fclose(in);
    snprintf(wanted, sizeof wanted, "%d\n", (int)pid);
    assert_string_equal(text, wanted);
}

/* Another master that has written it, and lives until it is killed. */
static pid_t start_other(void)
{
    int ready[2];
    char byte;
    pid_t pid;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct pid_file file = PID_FILE_NONE;

        pid_file_write(&file, path);
        if (write(ready[1], "r", 1) == 1)
            pause();
        _exit(1);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void kill_other(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_it_holds_the_pid_and_goes_with_the_master(void **state)
{
    struct pid_file file = PID_FILE_NONE;

    (void)state;
    assert_true(pid_file_check(path));
    assert_true(pid_file_is_free(path));
    pid_file_write(&file, path);
    assert_holds(getpid());
    assert_true(pid_file_check(path));
    pid_file_remove(&file);
    assert_int_equal(access(path, F_OK), -1);
}

static void test_no_setting_is_no_file(void **state)
{
    struct pid_file file = PID_FILE_NONE;

    (void)state;
    assert_true(pid_file_check("") && pid_file_is_free(""));
    pid_file_write(&file, "");
    assert_null(file.path);
    pid_file_remove(&file);
}

static void test_that_of_a_living_master_is_not_free_and_a_leftover_is(void **state)
{
    struct pid_file file = PID_FILE_NONE;
    pid_t other = start_other();

    (void)state;
    assert_holds(other);
    assert_false(pid_file_is_free(path));
    kill_other(other);
    assert_true(pid_file_is_free(path));
    pid_file_write(&file, path);
    assert_holds(getpid());
    pid_file_remove(&file);
}

/* A pid that another program has by now says nothing: nobody holds the lock. */
static void test_a_number_without_a_lock_is_a_leftover(void **state)
{
    char text[32];

    (void)state;
    snprintf(text, sizeof text, "%d\n", (int)getpid());
    put(text);
    assert_true(pid_file_is_free(path));
    put("");
    assert_true(pid_file_is_free(path));
    unlink(path);
}

static void test_what_is_no_pid_file_is_left_alone(void **state)
{
    static const char *const texts[] = {"root:x:0:0\n", "12 34\n", "12\n\n", "12345678901234567890\n", "-1\n"};

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        put(texts[i]);
        assert_false(pid_file_is_free(path));
    }
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    assert_false(pid_file_check(path));
    assert_false(pid_file_is_free(path));
    unlink(path);
    assert_false(pid_file_check("/nonexistent/sandstorm.pid"));
}

static void test_another_s_file_is_not_removed(void **state)
{
    struct pid_file file = PID_FILE_NONE;
    pid_t other;

    (void)state;
    pid_file_write(&file, path);
    other = start_other();
    pid_file_remove(&file);
    assert_holds(other);
    kill_other(other);
    unlink(path);
}

/* The server goes on without: it was checked before. */
static void test_where_it_cannot_be_written_there_is_none(void **state)
{
    struct pid_file file = PID_FILE_NONE;
    char fresh[sizeof path + 4];

    (void)state;
    snprintf(fresh, sizeof fresh, "%s.new", path);
    assert_int_equal(mkdir(path, 0700), 0);
    pid_file_write(&file, path);
    assert_null(file.path);
    assert_int_equal(file.fd, -1);
    assert_int_equal(access(fresh, F_OK), -1);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/etc/passwd", fresh), 0); /* is not followed */
    pid_file_write(&file, path);
    assert_null(file.path);
    assert_int_equal(access(path, F_OK), -1);
    unlink(fresh);
}

static void test_an_adopted_one_is_removed_too(void **state)
{
    struct pid_file before = PID_FILE_NONE, after = PID_FILE_NONE;

    (void)state;
    pid_file_write(&before, path);
    pid_file_adopt(&after, path, before.fd);
    free(before.path);
    pid_file_remove(&after);
    assert_int_equal(access(path, F_OK), -1);
    pid_file_adopt(&after, path, -1);
    assert_null(after.path);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(directory) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/sandstorm.pid", directory);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_holds_the_pid_and_goes_with_the_master),
        cmocka_unit_test(test_no_setting_is_no_file),
        cmocka_unit_test(test_that_of_a_living_master_is_not_free_and_a_leftover_is),
        cmocka_unit_test(test_a_number_without_a_lock_is_a_leftover),
        cmocka_unit_test(test_what_is_no_pid_file_is_left_alone),
        cmocka_unit_test(test_another_s_file_is_not_removed),
        cmocka_unit_test(test_where_it_cannot_be_written_there_is_none),
        cmocka_unit_test(test_an_adopted_one_is_removed_too),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
