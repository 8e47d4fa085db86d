/*
 * Files on their way from a sandbox to a client: held whole, read back in pieces, compared with what was given.
 */
#include "tests/unit/unit.h"
#include "worker/input_files.h"
#include "worker/spool.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static char folder[] = "/tmp/sandstorm-spool-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? setenv("TMPDIR", folder, 1) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

static int count_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(directory) != NULL)
        count++;
    closedir(directory);
    return count;
}

/* Bytes that tell their place. */
static void fill(char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)(i * 31 + i / 251);
}

static void test_any_size_is_read_back_as_it_was(void **state)
{
    static const size_t sizes[] = {0, 1, SPOOL_MEMORY_BYTES - 1, SPOOL_MEMORY_BYTES, SPOOL_MEMORY_BYTES + 1, 3000000};
    static char bytes[3000000], back[70000];
    int before = count_descriptors();

    (void)state;
    fill(bytes, sizeof bytes);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct spool *spool = spool_new(false);

        for (size_t at = 0; at < sizes[i]; at += 16000)
            assert_true(spool_add(spool, bytes + at, sizes[i] - at < 16000 ? sizes[i] - at : 16000));
        assert_int_equal(spool_length(spool), sizes[i]);
        assert_int_equal(count_descriptors() - before, sizes[i] > SPOOL_MEMORY_BYTES);
        for (size_t at = 0; at <= sizes[i]; at += sizeof back) {
            size_t length = sizes[i] - at < sizeof back ? sizes[i] - at : sizeof back;

            assert_true(spool_read(spool, at, back, length));
            assert_memory_equal(back, bytes + at, length);
        }
        assert_false(spool_read(spool, sizes[i], back, 1));
        spool_free(spool);
    }
    assert_int_equal(count_descriptors(), before);
}

/* tear_down() sees that the folder is empty. */
static void test_a_full_disk_is_told(void **state)
{
    static char bytes[SPOOL_MEMORY_BYTES * 2];
    struct rlimit old, small = {.rlim_cur = SPOOL_MEMORY_BYTES + 1000, .rlim_max = RLIM_INFINITY};
    struct spool *spool = spool_new(false);

    (void)state;
    getrlimit(RLIMIT_FSIZE, &old);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_true(spool_add(spool, bytes, SPOOL_MEMORY_BYTES));
    assert_false(spool_add(spool, bytes, SPOOL_MEMORY_BYTES));
    assert_int_equal(errno, EFBIG);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    spool_free(spool);
}

static void test_a_folder_that_is_not_there_is_told(void **state)
{
    static char bytes[SPOOL_MEMORY_BYTES + 1];
    struct spool *spool = spool_new(false);

    (void)state;
    setenv("TMPDIR", "/nowhere", 1);
    assert_false(spool_add(spool, bytes, sizeof bytes));
    assert_int_equal(errno, ENOENT);
    setenv("TMPDIR", folder, 1);
    spool_free(spool);
}

static struct spool *spool_of(const char *text)
{
    struct spool *spool = spool_new(true);

    assert_true(spool_add(spool, text, strlen(text)));
    return spool;
}

static void test_an_input_is_known_by_path_size_and_content(void **state)
{
    static const struct {
        const char *path, *content;
        bool same;
    } files[] = {
        {"a b.txt", "content", true}, {"a b.txt", "Content", false}, {"a b.txt", "content ", false},
        {"other", "content", false},  {"empty", "", true},
    };
    json_t *given = json_pack("{s:s, s:s}", "a b.txt", "content", "empty", "");
    struct input_files *inputs = input_files_new(given);

    (void)state;
    json_decref(given);
    for (size_t i = 0; i < COUNT(files); i++) {
        struct spool *spool = spool_of(files[i].content);

        assert_int_equal(input_files_is(inputs, files[i].path, spool), files[i].same);
        spool_free(spool);
    }
    assert_true(input_files_may_be(inputs, "a b.txt", 7));
    assert_false(input_files_may_be(inputs, "a b.txt", 8));
    input_files_free(inputs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_size_is_read_back_as_it_was),
        cmocka_unit_test(test_a_full_disk_is_told),
        cmocka_unit_test(test_a_folder_that_is_not_there_is_told),
        cmocka_unit_test(test_an_input_is_known_by_path_size_and_content),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
