/* The skills on disk: which files count, what is skipped, when a tree is read again. */
#include "tests/unit/unit.h"
#include "worker/skill_walk.h"
#include "worker/skills.h"

#include <dirent.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MS 20000

static struct {
    char dir[64];
    struct event_base *base;
    struct skill_tree *tree;
    int log; /* what would be on stderr */
    int stderr_kept;
} here;

/* --- a directory of one's own ------------------------------------------------------------------------ */

static const char *at(const char *path)
{
    static char buffers[2][PATH_MAX];
    static int turn;
    char *out = buffers[turn = !turn];

    snprintf(out, PATH_MAX, "%s/%s", here.dir, path);
    return out;
}

static void make_parents(const char *path)
{
    char full[PATH_MAX];

    snprintf(full, sizeof full, "%s", at(path));
    for (char *slash = strchr(full + strlen(here.dir) + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(full, 0700);
        *slash = '/';
    }
}

static void put_bytes(const char *path, const void *bytes, size_t length)
{
    int fd;

    make_parents(path);
    fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, length), length);
    close(fd);
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

static void put_link(const char *path, const char *target)
{
    make_parents(path);
    assert_int_equal(symlink(target, at(path)), 0);
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *position)
{
    (void)status;
    (void)kind;
    (void)position;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(here.dir, sizeof here.dir, "/tmp/skills-test-XXXXXX");
    here.base = event_base_new();
    here.log = memfd_create("log", MFD_CLOEXEC);
    here.stderr_kept = dup(STDERR_FILENO);
    if (mkdtemp(here.dir) == NULL || here.base == NULL || here.log < 0 || here.stderr_kept < 0)
        return -1;
    return dup2(here.log, STDERR_FILENO) < 0;
}

static int tear_down(void **state)
{
    (void)state;
    skill_tree_free(here.tree);
    here.tree = NULL;
    event_base_free(here.base);
    dup2(here.stderr_kept, STDERR_FILENO);
    close(here.stderr_kept);
    close(here.log);
    return nftw(here.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static const struct skill_set *open_tree(void)
{
    here.tree = skill_tree_new(here.base, here.dir);
    assert_non_null(here.tree);
    return skill_tree_current(here.tree);
}

/* How often a text stands in the log. */
static int logged(const char *text)
{
    static char log[1 << 20];
    ssize_t length = pread(here.log, log, sizeof log - 1, 0);
    int count = 0;

    assert_true(length >= 0);
    log[length] = '\0';
    for (const char *found = strstr(log, text); found != NULL; found = strstr(found + 1, text))
        count++;
    return count;
}

static const struct skill *find_skill(const struct skill_set *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->skills[i].name, name) == 0)
            return &set->skills[i];
    }
    return NULL;
}

/* The content of a file, "" when there is none. */
static const char *content(const struct skill_set *set, const char *name, const char *path)
{
    static char text[64];
    const struct skill *skill = find_skill(set, name);

    text[0] = '\0';
    for (size_t i = 0; skill != NULL && i < skill->file_count; i++) {
        if (strcmp(skill->files[i].path, path) == 0)
            snprintf(text, sizeof text, "%.*s", (int)skill->files[i].length, skill->files[i].bytes);
    }
    return text;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* A change a moment ago is read once more, to be sure: waits until the tree is left alone. */
static const struct skill_set *settle(void)
{
    const struct skill_set *before;
    int64_t end = now_ms() + DEADLINE_MS;

    do {
        assert_true(now_ms() < end);
        before = skill_tree_current(here.tree);
        skill_tree_check(here.tree);
    } while (skill_tree_current(here.tree) != before);
    return before;
}

/* --- what counts ------------------------------------------------------------------------------------- */

static void test_a_skill_is_a_directory_with_all_its_files(void **state)
{
    const struct skill_set *set;

    (void)state;
    put("zeta/SKILL.md", "last");
    put("Alpha_1-x/SKILL.md", "first");
    put("Alpha_1-x/docs/deep/er/notes.txt", "n\xc3\xb6tes");
    put("Alpha_1-x/.hidden", "kept");
    put("Alpha_1-x/empty", "");
    put("Alpha_1-x/.DS_Store", "x");
    put("Alpha_1-x/docs/.DS_Store", "x");
    set = open_tree();
    assert_int_equal(set->count, 2);
    assert_string_equal(set->skills[0].name, "Alpha_1-x");
    assert_string_equal(set->skills[1].name, "zeta");
    assert_int_equal(set->skills[0].file_count, 4);
    assert_string_equal(content(set, "Alpha_1-x", "SKILL.md"), "first");
    assert_string_equal(content(set, "Alpha_1-x", "docs/deep/er/notes.txt"), "n\xc3\xb6tes");
    assert_string_equal(content(set, "Alpha_1-x", ".hidden"), "kept");
    assert_int_equal(logged("skipped"), 0);
}

static const struct {
    const char *path;
    const char *text; /* NULL: a FIFO */
    const char *warning;
} misfits[] = {
    {"loose.md", "x", "loose.md: skipped: not a directory"},
    {"a b/SKILL.md", "x", "a b: skipped: its name"},
    {"na\xc3\xafve/SKILL.md", "x", "na\xc3\xafve: skipped: its name"},
    {".git/SKILL.md", "x", ".git: skipped: its name"},
    {"new\nline/SKILL.md", "x", "new\\x0aline: skipped: its name"},
    {"bare/readme.md", "x", "bare: skipped: it has no file SKILL.md"},
    {"odd/SKILL.md/x", "x", "odd: skipped: it has no file SKILL.md"},
    {"latin/SKILL.md", "caf\xe9", "latin/SKILL.md: skipped: not UTF-8"},
    {"latin/more", "x", "latin: skipped: its SKILL.md was skipped"},
    {"good/image.png", "\x89PNG", "good/image.png: skipped: not UTF-8"},
    {"good/queue", NULL, "good/queue: skipped: neither a regular file nor a directory"},
};

static void test_what_is_no_skill_is_skipped_with_a_warning(void **state)
{
    const struct skill_set *set;

    (void)state;
    put("good/SKILL.md", "fine");
    for (size_t i = 0; i < COUNT(misfits); i++) {
        if (misfits[i].text != NULL)
            put(misfits[i].path, misfits[i].text);
        else
            assert_int_equal(mkfifo(at(misfits[i].path), 0600), 0);
    }
    set = open_tree();
    assert_int_equal(set->count, 1);
    assert_int_equal(find_skill(set, "good")->file_count, 1);
    assert_string_equal(content(set, "good", "SKILL.md"), "fine");
    for (size_t i = 0; i < COUNT(misfits); i++) {
        if (logged(misfits[i].warning) != 1)
            fail_msg("%s: %d times in the log", misfits[i].warning, logged(misfits[i].warning));
    }
    settle();
    assert_int_equal(logged("bare: skipped"), 1);
}

static void test_links_stay_inside_the_skill(void **state)
{
    char absolute[PATH_MAX];
    const struct skill_set *set;

    (void)state;
    snprintf(absolute, sizeof absolute, "%s", at("one/docs/text"));
    put("one/SKILL.md", "one");
    put("one/docs/text", "inside");
    put("two/SKILL.md", "two");
    put_link("one/same", "docs/text");
    put_link("one/absolute", absolute);
    put_link("one/more", "docs");
    put_link("one/docs/up", "..");
    put_link("one/neighbour", "../two/SKILL.md");
    put_link("one/host", "/etc/hostname");
    put_link("one/root", "/");
    put_link("one/lost", "nowhere");
    put_link("one/itself", "itself");
    put_link("alias", "two");
    put_link("outside", "/etc");
    set = open_tree();
    assert_int_equal(set->count, 3);
    assert_string_equal(content(set, "one", "same"), "inside");
    assert_string_equal(content(set, "one", "absolute"), "inside");
    assert_string_equal(content(set, "one", "more/text"), "inside");
    assert_string_equal(content(set, "alias", "SKILL.md"), "two");
    assert_int_equal(find_skill(set, "one")->file_count, 5);
    assert_int_equal(logged("one/neighbour: skipped: a link that leads out of the skill"), 1);
    assert_int_equal(logged("one/host: skipped: a link that leads out of the skill"), 1);
    assert_int_equal(logged("one/root: skipped: a link that leads out of the skill"), 1);
    assert_int_equal(logged("one/lost: skipped: a link that leads nowhere"), 1);
    assert_int_equal(logged("one/itself: skipped: a link that leads nowhere"), 1);
    assert_int_equal(logged("one/docs/up: skipped: a link that leads to a directory it is in"), 1);
    assert_int_equal(logged("outside: skipped: a link that leads out of the skills directory"), 1);
}

/* Each directory holds two links to the next one: 2^18 ways to the end. */
static void test_a_tree_of_links_ends(void **state)
{
    char path[64], target[64];

    (void)state;
    put("maze/SKILL.md", "x");
    for (int i = 0; i < 18; i++) {
        snprintf(target, sizeof target, "../d%d", i + 1);
        for (const char *side = "lr"; *side != '\0'; side++) {
            snprintf(path, sizeof path, "maze/d%d/%c", i, *side);
            put_link(path, target);
        }
    }
    assert_int_equal(mkdir(at("maze/d18"), 0700), 0);
    assert_int_equal(open_tree()->count, 1);
    assert_true(logged("goes beyond the 20000 entries") > 0);
}

/* --- bounds ------------------------------------------------------------------------------------------ */

static void test_a_set_is_bounded_in_bytes(void **state)
{
    static char large[(SKILL_SET_MAX_BYTES / 2) + 1];
    const struct skill_set *set;

    (void)state;
    memset(large, 'x', sizeof large);
    put("big/SKILL.md", "ok");
    put_bytes("big/a", large, sizeof large);
    put_bytes("big/b", large, sizeof large);
    put_bytes("big/c", large, sizeof large - 5);
    put("big/d", "s");
    put("big/e", "s");
    set = open_tree();
    assert_int_equal(find_skill(set, "big")->file_count, 4);
    assert_int_equal(logged("big/b: skipped: the skills are larger than 20 MiB"), 1);
    assert_int_equal(logged("big/e: skipped: the skills are larger than 20 MiB"), 1);
    assert_string_equal(content(set, "big", "d"), "s");
}

static void test_a_set_is_bounded_in_files(void **state)
{
    char path[64];
    const struct skill_set *set;

    (void)state;
    for (int i = 0; i < SKILL_SET_MAX_FILES + 30; i++) {
        snprintf(path, sizeof path, "many/f%05d", i);
        put(path, "x");
    }
    put("many/SKILL.md", "x");
    set = open_tree();
    assert_int_equal(find_skill(set, "many")->file_count, SKILL_SET_MAX_FILES);
    assert_int_equal(logged("many/f01999: skipped: the skills have more than 2000 files"), 1);
    assert_int_equal(logged("more than 2000 files"), 20);
    assert_int_equal(logged("11 more were skipped"), 1);
}

static void test_a_set_is_bounded_in_depth(void **state)
{
    char path[256] = "deep";

    (void)state;
    put("deep/SKILL.md", "x");
    for (int i = 1; i < SKILL_DEPTH_MAX; i++)
        strcat(path, "/d");
    put(strcat(path, "/last"), "x");
    strcpy(strrchr(path, '/'), "/d/beyond");
    put(path, "x");
    assert_int_equal(find_skill(open_tree(), "deep")->file_count, 2);
    assert_int_equal(logged("more than 20 directories deep"), 1);
}

/* --- changes ----------------------------------------------------------------------------------------- */

static void test_an_unchanged_tree_is_not_read_again(void **state)
{
    const struct skill_set *set;

    (void)state;
    put("one/SKILL.md", "a");
    open_tree();
    set = settle();
    for (int i = 0; i < 5; i++) {
        skill_tree_check(here.tree);
        assert_ptr_equal(skill_tree_current(here.tree), set);
    }
}

/* Within one tick of the file system's clock a second change leaves the same time behind. */
static void test_a_change_of_this_moment_is_read_once_more(void **state)
{
    const struct skill_set *first;
    int64_t end = now_ms() + DEADLINE_MS;
    int64_t start;

    (void)state;
    open_tree();
    do {
        start = now_ms();
        assert_true(start < end);
        put("one/SKILL.md", "a");
        skill_tree_check(here.tree);
    } while (now_ms() - start > 50); /* this machine was too slow to show it */
    first = skill_tree_current(here.tree);
    skill_tree_check(here.tree);
    assert_ptr_not_equal(skill_tree_current(here.tree), first);
}

static void expect_change(const char *name, const char *path, const char *wanted)
{
    skill_tree_check(here.tree);
    if (strcmp(content(skill_tree_current(here.tree), name, path), wanted) != 0)
        fail_msg("%s/%s is not '%s'", name, path, wanted);
    settle();
}

static void test_every_change_is_seen(void **state)
{
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};

    (void)state;
    put("one/SKILL.md", "a");
    put("one/sub/file", "a");
    put_link("one/link", "sub/file");
    open_tree();
    settle();
    put("one/sub/file", "b");
    expect_change("one", "link", "b");
    put("one/sub/file", "c");
    assert_int_equal(utimensat(AT_FDCWD, at("one/sub/file"), old, 0), 0);
    expect_change("one", "sub/file", "c");
    put("one/sub/new", "n");
    expect_change("one", "sub/new", "n");
    assert_int_equal(rename(at("one/sub/new"), at("one/sub/file")), 0);
    expect_change("one", "sub/file", "n");
    assert_int_equal(rename(at("one"), at("other")), 0);
    expect_change("other", "sub/file", "n");
    assert_int_equal(unlink(at("other/SKILL.md")), 0);
    expect_change("other", "sub/file", "");
    put("other/SKILL.md", "back");
    expect_change("other", "SKILL.md", "back");
}

static void test_the_timer_looks_by_itself(void **state)
{
    int64_t end = now_ms() + DEADLINE_MS;

    (void)state;
    put("one/SKILL.md", "a");
    open_tree();
    put("one/SKILL.md", "changed");
    while (strcmp(content(skill_tree_current(here.tree), "one", "SKILL.md"), "changed") != 0) {
        assert_true(now_ms() < end);
        event_base_loop(here.base, EVLOOP_ONCE);
    }
}

static void test_a_vanished_directory_leaves_the_last_good_set(void **state)
{
    char away[sizeof here.dir + 8];

    (void)state;
    put("one/SKILL.md", "kept");
    open_tree();
    settle();
    snprintf(away, sizeof away, "%s.away", here.dir);
    assert_int_equal(rename(here.dir, away), 0);
    skill_tree_check(here.tree);
    skill_tree_check(here.tree);
    assert_string_equal(content(skill_tree_current(here.tree), "one", "SKILL.md"), "kept");
    assert_int_equal(logged("cannot be read: No such file or directory"), 1);
    assert_int_equal(rename(away, here.dir), 0);
    put("one/SKILL.md", "new");
    expect_change("one", "SKILL.md", "new");
}

static void test_a_run_keeps_its_set(void **state)
{
    const struct skill_set *kept;

    (void)state;
    put("one/SKILL.md", "old");
    kept = skill_set_ref(open_tree());
    put("one/SKILL.md", "newer");
    expect_change("one", "SKILL.md", "newer");
    assert_string_equal(content(kept, "one", "SKILL.md"), "old");
    skill_tree_free(here.tree);
    here.tree = NULL;
    assert_string_equal(content(kept, "one", "SKILL.md"), "old");
    skill_set_unref(kept);
}

/* Makes, swaps and removes what a reader may be looking at, until it is killed. */
static _Noreturn void disturb(void)
{
    for (int i = 0;; i++) {
        unlink(at("one/x"));
        if (i % 4 == 0)
            mkfifo(at("one/x"), 0600);
        else if (i % 4 == 1)
            (void)!symlink(i % 8 == 1 ? "/" : "..", at("one/x"));
        else if (i % 4 == 2)
            close(open(at("one/x"), O_WRONLY | O_CREAT, 0600));
        rename(at("one/sub"), at("one/bus"));
        rename(at("one/bus"), at("one/sub"));
        (void)!truncate(at("one/sub/file"), i % 100000);
    }
}

static void test_a_tree_that_changes_while_it_is_read_does_no_harm(void **state)
{
    int64_t end = now_ms() + 1500;
    pid_t child;

    (void)state;
    put("one/SKILL.md", "a");
    put("one/sub/file", "a");
    open_tree();
    child = fork();
    assert_true(child >= 0);
    if (child == 0)
        disturb();
    while (now_ms() < end)
        skill_tree_check(here.tree);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    settle();
    assert_string_equal(content(skill_tree_current(here.tree), "one", "SKILL.md"), "a");
}

static size_t open_descriptors(void)
{
    DIR *stream = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(stream);
    while (readdir(stream) != NULL)
        count++;
    closedir(stream);
    return count;
}

static void test_no_descriptor_stays_open(void **state)
{
    size_t before;

    (void)state;
    before = open_descriptors();
    put("one/SKILL.md", "a");
    put("one/sub/file", "a");
    put("bare/x", "a");
    put_link("one/in", "sub");
    put_link("one/out", "/etc");
    put_link("one/sub/loop", "..");
    put_link("alias", "one");
    open_tree();
    settle();
    assert_int_equal(open_descriptors(), before);
}

static void test_no_directory_is_no_skills(void **state)
{
    (void)state;
    here.tree = skill_tree_new(here.base, "");
    assert_non_null(here.tree);
    assert_int_equal(skill_tree_current(here.tree)->count, 0);
}

static void test_a_directory_is_checked(void **state)
{
    const char *reason;

    (void)state;
    put("file", "x");
    assert_true(skills_check(here.dir, &reason));
    assert_null(reason);
    assert_false(skills_check(at("file"), &reason));
    assert_string_equal(reason, "Not a directory");
    assert_false(skills_check(at("missing"), &reason));
    assert_string_equal(reason, "No such file or directory");
}

#define skills_test(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        skills_test(test_a_skill_is_a_directory_with_all_its_files),
        skills_test(test_what_is_no_skill_is_skipped_with_a_warning),
        skills_test(test_links_stay_inside_the_skill),
        skills_test(test_a_tree_of_links_ends),
        skills_test(test_a_set_is_bounded_in_bytes),
        skills_test(test_a_set_is_bounded_in_files),
        skills_test(test_a_set_is_bounded_in_depth),
        skills_test(test_an_unchanged_tree_is_not_read_again),
        skills_test(test_a_change_of_this_moment_is_read_once_more),
        skills_test(test_every_change_is_seen),
        skills_test(test_the_timer_looks_by_itself),
        skills_test(test_a_vanished_directory_leaves_the_last_good_set),
        skills_test(test_a_run_keeps_its_set),
        skills_test(test_a_tree_that_changes_while_it_is_read_does_no_harm),
        skills_test(test_no_descriptor_stays_open),
        skills_test(test_no_directory_is_no_skills),
        skills_test(test_a_directory_is_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
