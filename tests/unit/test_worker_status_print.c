/* `sandstorm status` for a person: how long, how dear, and nothing of a prompt that would move the cursor. */
#include "tests/unit/unit.h"

#include "common/clock.h"
#include "common/run_table.h"
#include "worker/worker.h"

#include <sys/mman.h>
#include <unistd.h>

#define SECOND_US 1000000LL

static struct scoreboard *board;
static int slot;

static void begin(uint64_t id, int64_t age_s, const char *prompt, int turns, double cost)
{
    struct run_entry entry;

    assert_true(scoreboard_admit_run(board, slot));
    assert_true(run_entry_take(&entry, board, atomic_load(&board->slots[slot].serial), id));
    entry.record.started_us = realtime_us() - age_s * SECOND_US - SECOND_US / 2;
    entry.record.num_turns = turns;
    entry.record.has_cost = cost >= 0;
    entry.record.cost_usd = cost;
    run_entry_set(&entry, RUN_STRING_PROMPT, prompt, strlen(prompt));
    run_entry_publish(&entry);
}

/* What is printed to stdout. */
static const char *printed(bool json)
{
    static char text[8192];
    int fd = memfd_create("stdout", MFD_CLOEXEC), kept = dup(STDOUT_FILENO);
    ssize_t length;

    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    assert_true(worker_print_status(board, 4711, json));
    dup2(kept, STDOUT_FILENO);
    close(kept);
    length = pread(fd, text, sizeof text - 1, 0);
    close(fd);
    assert_true(length > 0);
    text[length] = '\0';
    return text;
}

static void expect(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("\"%s\" is not in:\n%s", wanted, text);
}

static int set_up(void **state)
{
    (void)state;
    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 8, .run_history = 1}, NULL);
    if (board == NULL)
        return -1;
    board->started_us = realtime_us() - (4 * 86400 + 3 * 3600 + 5) * SECOND_US;
    snprintf(board->instance, sizeof board->instance, "here");
    slot = scoreboard_take_slot(board, 1);
    scoreboard_hold_slot(board, slot, 1, getpid());
    atomic_store(&board->slots[slot].state, WORKER_SERVING);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scoreboard_free(board);
    return 0;
}

static void test_durations_are_told_in_two_units(void **state)
{
    const char *text;

    (void)state;
    begin(1, 3, "seconds", 0, -1);
    begin(2, 5 * 60 + 3, "minutes", 0, -1);
    begin(3, 2 * 3600 + 5 * 60, "hours", 0, -1);
    begin(4, 26 * 3600, "a day", 0, -1);
    text = printed(false);
    expect(text, "master 4711, instance here\n");
    expect(text, ", 4 d 03 h ago\n");
    expect(text, "5 min 03 s  minutes\n");
    expect(text, "2 h 05 min  hours\n");
    expect(text, "1 d 02 h  a day\n");
    expect(text, " s  seconds\n");
}

static void test_turns_and_cost_are_shown_when_they_are_known(void **state)
{
    const char *text;

    (void)state;
    begin(1, 3, "known", 7, 0.25);
    begin(2, 3, "unknown", -1, -1);
    text = printed(false);
    expect(text, "      7    $0.2500  ");
    expect(text, "      -          -  ");
}

static void test_what_is_no_character_is_a_blank(void **state)
{
    const char *text;

    (void)state;
    begin(1, 3, "a\x1b[2Jb\xff\xe2\x82\xac\n", 0, -1);
    text = printed(false);
    expect(text, "  a [2Jb \xe2\x82\xac \n");
    assert_null(strchr(text, '\x1b'));
}

static void test_json_is_whole(void **state)
{
    (void)state;
    begin(1, 3, "a prompt", 7, 0.25);
    expect(printed(true), "\"prompt\": \"a prompt\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_durations_are_told_in_two_units, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_turns_and_cost_are_shown_when_they_are_known, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_no_character_is_a_blank, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_json_is_whole, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
