/* The state directory: its modes, its one holder, the name that is kept there, and what happens where it cannot be. */
#include "master/state_dir.h"
#include "tests/unit/unit.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char home[] = "/tmp/sandstorm-state-XXXXXX";
static char path[128]; /* of the state directory, which does not exist yet */
static struct state_dir dir;

static int remove_one(const char *name, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(name);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(home + sizeof home - 7, "XXXXXX");
    if (mkdtemp(home) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/state", home);
    dir = STATE_DIR_CLOSED;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    state_dir_close(&dir);
    return nftw(home, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A file in the state directory; a static buffer. */
static const char *in_state(const char *name)
{
    static char file[256];

    snprintf(file, sizeof file, "%s/%s", path, name);
    return file;
}

static void write_file(const char *file, const char *text, mode_t mode)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static unsigned mode_of(const char *file)
{
    struct stat status;

    assert_int_equal(stat(file, &status), 0);
    return status.st_mode & 07777;
}

static void test_it_is_made_for_us_alone(void **state)
{
    mode_t mask = umask(0);

    (void)state;
    assert_true(state_dir_open(&dir, path));
    umask(mask);
    assert_string_equal(dir.path, path);
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(mode_of(in_state("lock")), 0600);
    assert_true(fcntl(dir.lock_fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(dir.fd, F_GETFD) & FD_CLOEXEC);
}

static void test_wider_modes_are_narrowed(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(in_state("runs.jsonl"), "", 0644);
    assert_int_equal(chmod(path, 0755), 0);
    assert_true(state_dir_open(&dir, path));
    assert_int_equal(mode_of(path), 0700);
    assert_int_equal(mode_of(in_state("runs.jsonl")), 0600);
}

static void test_a_directory_with_files_of_others_keeps_its_mode(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    write_file(in_state("passwd"), "", 0644);
    write_file(in_state("runs.jsonl"), "", 0666);
    assert_int_equal(chmod(path, 0755), 0);
    assert_true(state_dir_open(&dir, path));
    assert_non_null(dir.path);
    assert_int_equal(mode_of(path), 0755);
    assert_int_equal(mode_of(in_state("passwd")), 0644);
    assert_int_equal(mode_of(in_state("runs.jsonl")), 0600);
}

static void test_everybodys_directory_is_not_used(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(chmod(path, 01777), 0);
    assert_true(state_dir_open(&dir, path));
    assert_null(dir.path);
    assert_int_equal(mode_of(path), 01777);
    assert_int_equal(access(in_state("lock"), F_OK), -1);
}

static void test_where_it_cannot_be_there_is_none_and_a_name_all_the_same(void **state)
{
    char *name;

    (void)state;
    write_file(path, "", 0600);
    for (int i = 0; i < 2; i++) {
        assert_true(state_dir_open(&dir, i == 0 ? in_state("below-a-file") : path));
        assert_null(dir.path);
        assert_int_equal(dir.fd, -1);
        assert_int_equal(dir.lock_fd, -1);
        name = state_dir_instance(&dir);
        assert_int_equal(strlen(name), 16);
        free(name);
    }
    unlink(path);
    assert_true(state_dir_open(&dir, in_state("below-nothing"))); /* parents are not made */
    assert_null(dir.path);
}

/* Opens it in a child, which then waits to be killed or ends at once; true if the child could. */
static bool opens_in_child(pid_t *holder)
{
    int answer[2];
    char got = 'x';
    pid_t pid;

    assert_int_equal(pipe(answer), 0);
    pid = fork();
    if (pid == 0) {
        struct state_dir own;
        char said = state_dir_open(&own, path) ? 'y' : 'n';

        if (write(answer[1], &said, 1) == 1 && holder != NULL)
            pause();
        _exit(0);
    }
    assert_int_equal(read(answer[0], &got, 1), 1);
    close(answer[0]);
    close(answer[1]);
    if (holder != NULL)
        *holder = pid;
    else
        waitpid(pid, NULL, 0);
    return got == 'y';
}

static void test_a_second_master_is_refused_until_the_first_is_gone(void **state)
{
    pid_t holder;
    char told[512] = "", wanted[32];
    int log[2], saved = dup(STDERR_FILENO);

    (void)state;
    assert_true(opens_in_child(&holder));
    assert_int_equal(pipe(log), 0);
    dup2(log[1], STDERR_FILENO);
    assert_false(state_dir_open(&dir, path));
    dup2(saved, STDERR_FILENO);
    assert_true(read(log[0], told, sizeof told - 1) > 0);
    snprintf(wanted, sizeof wanted, "pid %d", (int)holder);
    assert_non_null(strstr(told, wanted));
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    assert_true(state_dir_open(&dir, path));
    assert_non_null(dir.path);
    close(log[0]);
    close(log[1]);
    close(saved);
}

static void test_a_child_neither_has_the_lock_nor_ends_it(void **state)
{
    int status;
    pid_t pid;

    (void)state;
    assert_true(state_dir_open(&dir, path));
    pid = fork();
    if (pid == 0) {
        close(dir.lock_fd);
        _exit(opens_in_child(NULL) ? 1 : 0); /* refused: the master has it */
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_false(opens_in_child(NULL));
    pid = fork();
    if (pid == 0) {
        pause(); /* a worker, with everything it inherited */
        _exit(0);
    }
    state_dir_close(&dir); /* what the end of the master does */
    assert_true(opens_in_child(NULL));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* The name as it is at a start. */
static char *name_at_start(void)
{
    char *name;

    assert_true(state_dir_open(&dir, path));
    name = state_dir_instance(&dir);
    state_dir_close(&dir);
    assert_non_null(name);
    return name;
}

static void test_the_name_is_made_once(void **state)
{
    char *first = name_at_start(), *second = name_at_start();

    (void)state;
    assert_string_equal(first, second);
    assert_int_equal(strlen(first), 16);
    assert_int_equal(mode_of(in_state("instance")), 0600);
    assert_int_equal(access(in_state("instance.new"), F_OK), -1);
    free(first);
    free(second);
}

static const struct {
    const char *text;
    const char *name; /* NULL: another one */
} kept_names[] = {
    {"prod-1.eu_west", "prod-1.eu_west"},
    {"prod\n", "prod"},
    {"prod\nsecond line", "prod"},
    {"0123456789012345678901234567890123456789012345678901234567890123\n",
     "0123456789012345678901234567890123456789012345678901234567890123"},
    {"01234567890123456789012345678901234567890123456789012345678901234", NULL},
    {"", NULL},
    {"\n", NULL},
    {"a b", NULL},
    {"a/b", NULL},
    {"a\xc3\xa4", NULL},
};

static void test_only_a_name_is_taken_as_one(void **state)
{
    (void)state;
    assert_int_equal(mkdir(path, 0700), 0);
    for (size_t i = 0; i < COUNT(kept_names); i++) {
        char *name, *again;

        write_file(in_state("instance"), kept_names[i].text, 0600);
        name = name_at_start();
        if (kept_names[i].name != NULL)
            assert_string_equal(name, kept_names[i].name);
        else
            assert_string_not_equal(name, kept_names[i].text);
        again = name_at_start();
        assert_string_equal(again, name);
        free(name);
        free(again);
    }
}

static void test_a_name_that_cannot_be_kept_is_a_name_all_the_same(void **state)
{
    char *first, *second;

    (void)state;
    assert_true(state_dir_open(&dir, path));
    assert_int_equal(mkdir(in_state("instance.new"), 0700), 0);
    first = state_dir_instance(&dir);
    assert_int_equal(strlen(first), 16);
    assert_int_equal(access(in_state("instance"), F_OK), -1);
    assert_int_equal(rmdir(in_state("instance.new")), 0);
    assert_int_equal(mkdir(in_state("instance"), 0700), 0);
    second = state_dir_instance(&dir);
    assert_string_not_equal(first, second);
    assert_int_equal(access(in_state("instance.new"), F_OK), -1); /* nothing half written is left */
    assert_int_equal(rmdir(in_state("instance")), 0);
    free(first);
    free(second);
}

static void test_a_check_tells_what_an_open_would_do_without(void **state)
{
    int kept = dup(STDERR_FILENO), told = memfd_create("told", MFD_CLOEXEC);
    char text[4096];
    ssize_t length;

    (void)state;
    write_file(path, "", 0600);
    dup2(told, STDERR_FILENO);
    state_dir_check(path);
    state_dir_check(in_state("below-a-file"));
    state_dir_check("/tmp");
    dup2(kept, STDERR_FILENO);
    close(kept);
    length = pread(told, text, sizeof text - 1, 0);
    close(told);
    assert_true(length > 0);
    text[length] = '\0';
    assert_non_null(strstr(text, ": Not a directory: no history of runs would be kept\n"));
    assert_non_null(strstr(text, "below-a-file: Not a directory: "));
    assert_non_null(strstr(text, "setting state_dir: /tmp: "));
    unlink(path);
}

static void test_a_check_changes_nothing(void **state)
{
    (void)state;
    state_dir_check(path);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chmod(path, 0755), 0);
    state_dir_check(path);
    assert_int_equal(mode_of(path), 0755);
    assert_int_equal(access(in_state("lock"), F_OK), -1);
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(test_it_is_made_for_us_alone),
        FRESH(test_wider_modes_are_narrowed),
        FRESH(test_a_directory_with_files_of_others_keeps_its_mode),
        FRESH(test_everybodys_directory_is_not_used),
        FRESH(test_where_it_cannot_be_there_is_none_and_a_name_all_the_same),
        FRESH(test_a_second_master_is_refused_until_the_first_is_gone),
        FRESH(test_a_child_neither_has_the_lock_nor_ends_it),
        FRESH(test_the_name_is_made_once),
        FRESH(test_only_a_name_is_taken_as_one),
        FRESH(test_a_name_that_cannot_be_kept_is_a_name_all_the_same),
        FRESH(test_a_check_tells_what_an_open_would_do_without),
        FRESH(test_a_check_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
