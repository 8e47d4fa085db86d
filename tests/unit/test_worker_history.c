/*
 * The history of runs on disk: what workers append, what a start makes of it, and how it is made small again while they
 * go on appending.
 */
#include "common/clock.h"
#include "common/run_table.h"
#include "tests/unit/unit.h"
#include "worker/history.h"
#include "worker/history_file.h"
#include "worker/history_store.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_RUNS    8
#define RUN_HISTORY 4
#define PATIENCE_MS 20000

static char home[] = "/tmp/sandstorm-history-XXXXXX";
static char path[64];
static struct scoreboard *board;
static struct event_base *base;
static struct history *history;
static int slot;

/* --- the world ------------------------------------------------------------------------------------------- */

static void new_board(unsigned run_history)
{
    scoreboard_free(board);
    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = MAX_RUNS, .run_history = run_history}, NULL);
    assert_non_null(board);
    slot = scoreboard_take_slot(board, 1);
}

/* Moves the end of what this process may write to a file. */
static void limit_file(rlim_t bytes)
{
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = bytes, .rlim_max = RLIM_INFINITY}), 0);
}

static int set_up(void **state)
{
    (void)state;
    strcpy(home + sizeof home - 7, "XXXXXX");
    if (mkdtemp(home) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/runs.jsonl", home);
    new_board(RUN_HISTORY);
    base = event_base_new();
    history = NULL;
    return base == NULL;
}

static int remove_one(const char *name, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(name);
}

static int tear_down(void **state)
{
    (void)state;
    limit_file(RLIM_INFINITY);
    history_free(history);
    event_base_free(base);
    scoreboard_free(board);
    board = NULL;
    return nftw(home, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void open_history(void)
{
    history = history_new(base, board, slot, home);
    assert_non_null(history);
}

static void write_file(const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

/* The whole file, which the caller frees. */
static char *read_file(void)
{
    int fd = open(path, O_RDONLY);
    struct stat status;
    char *text;

    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &status), 0);
    text = malloc((size_t)status.st_size + 1);
    assert_int_equal(read(fd, text, (size_t)status.st_size), status.st_size);
    text[status.st_size] = '\0';
    close(fd);
    return text;
}

static size_t count(const char *text, const char *word)
{
    size_t found = 0;

    for (; (text = strstr(text, word)) != NULL; text++)
        found++;
    return found;
}

static size_t lines_in_file(void)
{
    char *text = read_file();
    size_t lines = count(text, "\n");

    free(text);
    return lines;
}

static size_t in_file(const char *word)
{
    char *text = read_file();
    size_t found = count(text, word);

    free(text);
    return found;
}

/* Goes round the loop until the file has so many lines. */
static void expect_lines(size_t wanted)
{
    int64_t until_ms = monotonic_ms() + PATIENCE_MS;

    while (lines_in_file() != wanted && monotonic_ms() < until_ms)
        event_base_loop(base, EVLOOP_ONCE);
    assert_int_equal(lines_in_file(), wanted);
}

static struct run_entry begin(uint64_t id)
{
    struct run_entry entry;

    assert_true(run_entry_take(&entry, board, atomic_load(&board->slots[slot].serial), id));
    entry.record.started_us = (int64_t)id * 1000000;
    run_entry_publish(&entry);
    return entry;
}

static void end(struct run_entry *entry)
{
    assert_false(run_entry_begin_end(entry));
    entry->record.status = RUN_STATUS_COMPLETED;
    entry->record.ended_us = entry->record.started_us + 1;
    run_entry_end(entry);
}

/* The ids of all runs as digits, the newest first. */
static const char *listed(void)
{
    static char digits[64];
    const struct run_filter filter = {.status = -1};
    struct run_copy copy = {.text = NULL};
    unsigned *indices;
    int found = run_table_list(board, &filter, sizeof digits - 1, &indices);

    assert_true(found >= 0);
    *digits = '\0';
    for (int i = 0; i < found; i++) {
        assert_int_equal(run_table_read(board, indices[i], &copy), RUN_READ_OK);
        snprintf(digits + i, 2, "%x", (unsigned)copy.record.id);
    }
    run_copy_release(&copy);
    free(indices);
    return digits;
}

/* --- appending ------------------------------------------------------------------------------------------- */

static void test_each_change_is_one_whole_line(void **state)
{
    struct run_entry entry = begin(1);
    struct stat status;
    mode_t mask = umask(0);

    (void)state;
    open_history();
    umask(mask);
    history_append(history, entry.index);
    run_entry_set(&entry, RUN_STRING_SANDBOX_ID, "sbx", 3);
    run_entry_publish(&entry);
    history_append(history, entry.index);
    end(&entry);
    history_append(history, entry.index);
    assert_int_equal(lines_in_file(), 3);
    assert_int_equal(in_file("\"id\":\"0000000000000001\""), 3);
    assert_int_equal(in_file("\"status\":\"running\""), 2);
    assert_int_equal(in_file("\"sandbox_id\":\"sbx\""), 2);
    assert_int_equal(in_file("\"status\":\"completed\""), 1);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    assert_int_equal(atomic_load(&board->history_lines), 3);
    assert_true(history_works(history));
    assert_int_equal(lines_in_file(), 3); /* asking writes nothing */
}

static void test_a_line_waits_while_another_process_has_the_lock(void **state)
{
    struct run_entry entry = begin(1);
    int fd;

    (void)state;
    open_history();
    fd = open(path, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    history_append(history, entry.index);
    history_append(history, entry.index);
    assert_int_equal(lines_in_file(), 0);
    assert_true(history_works(history));
    close(fd);
    expect_lines(2);
}

static void test_what_waits_is_written_before_the_worker_leaves(void **state)
{
    struct run_entry entry = begin(1);
    int fd;

    (void)state;
    open_history();
    fd = open(path, O_RDONLY);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    history_append(history, entry.index);
    close(fd);
    history_free(history);
    history = NULL;
    assert_int_equal(lines_in_file(), 1);
}

static void test_a_line_that_was_torn_costs_no_other(void **state)
{
    struct run_entry entry = begin(1);

    (void)state;
    write_file("{\"id\":\"00000000000000aa\"}\n{\"id\":\"00000000000000bb\",\"pro");
    open_history();
    history_append(history, entry.index);
    assert_int_equal(lines_in_file(), 3);
    assert_int_equal(in_file("\n{\"id\":\"0000000000000001\""), 1);
}

static void test_a_file_that_was_moved_away_is_begun_anew(void **state)
{
    struct run_entry entry = begin(1);
    char moved[80];

    (void)state;
    open_history();
    history_append(history, entry.index);
    snprintf(moved, sizeof moved, "%s.1", path);
    assert_int_equal(rename(path, moved), 0);
    history_append(history, entry.index);
    assert_int_equal(lines_in_file(), 1);
    assert_int_equal(unlink(path), 0);
    history_append(history, entry.index);
    assert_int_equal(lines_in_file(), 1);
}

static void test_a_full_disk_loses_nothing_and_tears_nothing(void **state)
{
    struct run_entry entry = begin(1);
    struct stat before, after;

    (void)state;
    signal(SIGXFSZ, SIG_IGN); /* as in a worker */
    open_history();
    history_append(history, entry.index);
    assert_int_equal(stat(path, &before), 0);
    limit_file((rlim_t)before.st_size + 100);
    for (int i = 0; i < 3; i++)
        history_append(history, entry.index);
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_size, before.st_size);
    assert_false(history_works(history));
    assert_true(scoreboard_history_fails(board));
    limit_file(RLIM_INFINITY);
    assert_true(history_works(history));
    assert_false(scoreboard_history_fails(board));
    assert_int_equal(lines_in_file(), 4);
}

static void test_where_the_queue_is_full_the_oldest_is_lost(void **state)
{
    struct run_entry entry = begin(1);
    char *prompt = malloc(RUN_RAW_PROMPT_MAX_BYTES);
    size_t lines;

    (void)state;
    memset(prompt, 'x', RUN_RAW_PROMPT_MAX_BYTES);
    run_entry_set(&entry, RUN_STRING_RAW_PROMPT, prompt, RUN_RAW_PROMPT_MAX_BYTES);
    signal(SIGXFSZ, SIG_IGN);
    open_history();
    limit_file(0);
    for (int i = 0; i < 100; i++) {
        entry.record.num_turns = i;
        run_entry_publish(&entry);
        history_append(history, entry.index);
    }
    limit_file(RLIM_INFINITY);
    assert_true(history_works(history));
    lines = lines_in_file();
    assert_in_range(lines, 60, 64); /* 4 MiB */
    assert_int_equal(in_file("\"num_turns\":99,"), 1);
    assert_int_equal(in_file("\"num_turns\":0,"), 0);
    free(prompt);
}

static void test_one_workers_trouble_is_every_workers_answer(void **state)
{
    int other = scoreboard_take_slot(board, 1);

    (void)state;
    open_history();
    atomic_store(&board->slots[other].history_fails, true);
    assert_false(history_works(history));
    scoreboard_release_slot(board, other);
    assert_true(history_works(history));
}

static void test_without_a_state_directory_nothing_is_kept_and_that_is_told(void **state)
{
    struct run_entry entry = begin(1);

    (void)state;
    history = history_new(base, board, slot, NULL);
    history_append(history, entry.index);
    history_append(NULL, entry.index);
    assert_false(history_works(history));
    assert_int_equal(access(path, F_OK), -1);
}

static void test_what_is_no_file_is_neither_waited_for_nor_written(void **state)
{
    struct run_entry entry = begin(1);

    (void)state;
    assert_int_equal(mkfifo(path, 0600), 0);
    open_history();
    history_append(history, entry.index);
    assert_false(history_works(history));
    unlink(path);
    assert_true(history_works(history));
    assert_int_equal(lines_in_file(), 1);
}

/* --- restoring ------------------------------------------------------------------------------------------- */

/* A record of our own: all keys, few values. */
#define ROW(id, status, second)                                                                                        \
    "{\"id\":\"000000000000000" id "\",\"prompt\":\"p\",\"model\":null,\"status\":\"" status                           \
    "\",\"started_at\":\"2026-01-31T10:00:" second ".000000+00:00\",\"cost_usd\":null,\"num_turns\":null,"             \
    "\"duration_secs\":null,\"error\":null,\"files_count\":0,\"feedback\":null,\"feedback_user\":null,"                \
    "\"raw_prompt\":\"p\",\"agent_session_id\":null,\"sandbox_id\":null,\"team_id\":null,\"user_id\":null,"            \
    "\"channel_id\":null,\"thread_ts\":null,\"config_snapshot\":null,\"error_code\":null,\"result_subtype\":null,"     \
    "\"exit_code\":null,\"prompt_truncated\":false,\"trigger\":null,\"runtime\":\"e2b\",\"ended_at\":null}\n"

static void test_the_last_line_of_each_run_is_restored(void **state)
{
    struct run_copy copy = {.text = NULL};

    (void)state;
    write_file(ROW("1", "running", "01") ROW("2", "running", "02") ROW("2", "completed", "02")
                   ROW("1", "cancelled", "01"));
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "21");
    assert_int_equal(run_table_read(board, (unsigned)run_table_find(board, 1), &copy), RUN_READ_OK);
    assert_int_equal(copy.record.status, RUN_STATUS_CANCELLED);
    run_copy_release(&copy);
    assert_int_equal(lines_in_file(), 4); /* nothing to tell the file */
    assert_int_equal(atomic_load(&board->history_lines), 4);
    assert_int_equal(atomic_load(&board->ended_runs), 2);
}

static void test_lists_go_by_start_and_forgetting_by_end(void **state)
{
    struct run_entry entry;

    (void)state;
    write_file(ROW("3", "completed", "03") ROW("1", "completed", "01") ROW("4", "completed", "04")
                   ROW("2", "completed", "02"));
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "4321");
    for (uint64_t id = 5; id <= 7; id++) {
        entry = begin(id);
        end(&entry);
    }
    assert_string_equal(listed(), "7652"); /* 3, 1 and 4 had ended first */
}

static void test_only_the_newest_are_restored(void **state)
{
    (void)state;
    write_file(ROW("1", "running", "01") ROW("2", "completed", "02") ROW("3", "completed", "03")
                   ROW("4", "completed", "04") ROW("5", "completed", "05") ROW("6", "completed", "06"));
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "6541"); /* 1 ends now */
}

static void test_what_was_running_has_ended_and_the_file_says_so(void **state)
{
    (void)state;
    write_file(ROW("1", "running", "01"));
    for (int start = 0; start < 2; start++) {
        new_board(RUN_HISTORY);
        assert_true(history_restore(home, board));
        assert_int_equal(lines_in_file(), 2); /* once, not at each start */
        assert_int_equal(in_file("\"error\":\"server restarted\""), 1);
        assert_int_equal(in_file("\"error_code\":\"server_shutdown\""), 1);
    }
}

static void test_garbage_is_skipped(void **state)
{
    (void)state;
    write_file("\n{\n" ROW("1", "completed", "01") "\xff\xfe\nnull\n"
                                                   "{\"id\":\"1234abcd\",\"prompt\":\"of the reference\"}\n" ROW(
                                                       "2", "completed", "02") "{\"id\":\"0000");
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "21");
}

static void test_rows_of_the_reference_lose_their_file_contents_on_disk_too(void **state)
{
    (void)state;
    write_file("{\"id\": \"0000000000000001\", \"prompt\": \"p\", \"status\": \"completed\", \"started_at\": "
               "\"2026-01-31T10:00:00+00:00\", \"config_snapshot\": {\"files\": {\"a\": \"TOP SECRET\"}}}\n");
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "1");
    assert_true(history_compact(home, board));
    assert_int_equal(lines_in_file(), 1);
    assert_int_equal(in_file("SECRET"), 0);
    assert_int_equal(in_file("\"files\":{\"a\":10}"), 1);
}

static void test_no_file_and_an_empty_one_are_no_history(void **state)
{
    (void)state;
    assert_true(history_restore(home, board));
    assert_string_equal(listed(), "");
    assert_int_equal(access(path, F_OK), -1);
    write_file("");
    assert_true(history_restore(home, board));
    assert_true(history_compact(home, board));
    assert_string_equal(listed(), "");
}

/* --- compacting ------------------------------------------------------------------------------------------ */

static void test_a_line_for_each_run_that_is_kept_is_left(void **state)
{
    struct stat status;

    (void)state;
    write_file(ROW("1", "completed", "01") ROW("2", "completed", "02") ROW("3", "running", "03") "garbage\n" ROW(
        "4", "running", "04") ROW("4", "completed", "04") ROW("5", "completed", "05") ROW("6", "completed", "06"));
    assert_true(history_compact(home, board));
    assert_int_equal(lines_in_file(), 5); /* four that have ended, one that runs */
    assert_int_equal(in_file("\"id\":\"0000000000000001\""), 0);
    assert_int_equal(in_file("\"id\":\"0000000000000003\""), 1);
    assert_int_equal(in_file("\"id\":\"0000000000000004\""), 1);
    assert_int_equal(in_file("garbage"), 0);
    assert_int_equal(atomic_load(&board->history_lines), 5);
    assert_int_equal(stat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
}

static void test_a_file_that_is_small_already_stays(void **state)
{
    struct stat before, after;

    (void)state;
    write_file(ROW("1", "completed", "01") ROW("2", "running", "02"));
    assert_int_equal(stat(path, &before), 0);
    assert_true(history_compact(home, board));
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(after.st_ino, before.st_ino);
}

static void test_a_compaction_that_fails_changes_nothing(void **state)
{
    char new_path[80];

    (void)state;
    write_file(ROW("1", "running", "01") ROW("1", "completed", "01"));
    signal(SIGXFSZ, SIG_IGN);
    limit_file(100);
    assert_false(history_compact(home, board));
    limit_file(RLIM_INFINITY);
    assert_int_equal(lines_in_file(), 2);
    snprintf(new_path, sizeof new_path, "%s.new", path);
    assert_int_equal(access(new_path, F_OK), -1);
    assert_true(history_compact(home, board));
    assert_int_equal(lines_in_file(), 1);
}

#define APPENDERS       4
#define APPENDS_EACH    1500
#define COMPACTIONS_MIN 20

/* A worker that appends records of runs of its own, each once. */
static void append_in_child(unsigned worker)
{
    struct history_file file;
    char line[512];

    if (!history_file_init(&file, home, board))
        _exit(1);
    for (unsigned i = 0; i < APPENDS_EACH; i++) {
        int length =
            snprintf(line, sizeof line, "{\"id\":\"%08x%08x\",\"status\":\"completed\",\"prompt\":\"%.*s\"}\n",
                     worker + 1, i, (int)(i % 200),
                     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                     "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
                     "xxxx");

        if (history_file_lock(&file, true) != HISTORY_LOCKED || !history_file_append(&file, line, (size_t)length))
            _exit(1);
        history_file_unlock(&file);
    }
    history_file_release(&file);
    _exit(0);
}

/* A run of ours that is there twice: there is something to compact. */
static void append_twice(void)
{
    static const char line[] = "{\"id\":\"ffffffffffffffff\",\"status\":\"completed\"}\n";
    struct history_file file;

    assert_true(history_file_init(&file, home, board));
    assert_int_equal(history_file_lock(&file, true), HISTORY_LOCKED);
    for (int i = 0; i < 2; i++)
        assert_true(history_file_append(&file, line, sizeof line - 1));
    history_file_release(&file);
}

static void test_compaction_among_appending_workers_loses_tears_and_doubles_nothing(void **state)
{
    static unsigned char seen[APPENDERS][APPENDS_EACH];
    unsigned compactions = 0, alive = APPENDERS;
    char *text, *line, *rest;
    int status;

    (void)state;
    memset(seen, 0, sizeof seen);
    new_board(APPENDERS * APPENDS_EACH + 1);
    for (unsigned worker = 0; worker < APPENDERS; worker++) {
        if (fork() == 0)
            append_in_child(worker);
    }
    while (alive > 0 || compactions < COMPACTIONS_MIN) {
        append_twice();
        assert_true(history_compact(home, board));
        compactions++;
        while (alive > 0 && waitpid(-1, &status, WNOHANG) > 0) {
            assert_int_equal(status, 0);
            alive--;
        }
    }
    text = rest = read_file();
    assert_int_equal(count(text, "\n"), APPENDERS * APPENDS_EACH + 1);
    assert_int_equal(atomic_load(&board->history_lines), APPENDERS * APPENDS_EACH + 1);
    while (*(line = strsep(&rest, "\n")) != '\0') {
        unsigned worker, number;

        assert_int_equal(sscanf(line, "{\"id\":\"%8x%8x\",\"status\":\"completed\"", &worker, &number), 2);
        assert_int_equal(line[strlen(line) - 1], '}');
        if (worker <= APPENDERS)
            assert_int_equal(seen[worker - 1][number]++, 0);
    }
    free(text);
    assert_true(history_restore(home, board));
    assert_int_equal(atomic_load(&board->ended_runs), APPENDERS * APPENDS_EACH + 1);
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(test_each_change_is_one_whole_line),
        FRESH(test_a_line_waits_while_another_process_has_the_lock),
        FRESH(test_what_waits_is_written_before_the_worker_leaves),
        FRESH(test_a_line_that_was_torn_costs_no_other),
        FRESH(test_a_file_that_was_moved_away_is_begun_anew),
        FRESH(test_a_full_disk_loses_nothing_and_tears_nothing),
        FRESH(test_where_the_queue_is_full_the_oldest_is_lost),
        FRESH(test_one_workers_trouble_is_every_workers_answer),
        FRESH(test_without_a_state_directory_nothing_is_kept_and_that_is_told),
        FRESH(test_what_is_no_file_is_neither_waited_for_nor_written),
        FRESH(test_the_last_line_of_each_run_is_restored),
        FRESH(test_lists_go_by_start_and_forgetting_by_end),
        FRESH(test_only_the_newest_are_restored),
        FRESH(test_what_was_running_has_ended_and_the_file_says_so),
        FRESH(test_garbage_is_skipped),
        FRESH(test_rows_of_the_reference_lose_their_file_contents_on_disk_too),
        FRESH(test_no_file_and_an_empty_one_are_no_history),
        FRESH(test_a_line_for_each_run_that_is_kept_is_left),
        FRESH(test_a_file_that_is_small_already_stays),
        FRESH(test_a_compaction_that_fails_changes_nothing),
        FRESH(test_compaction_among_appending_workers_loses_tears_and_doubles_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
