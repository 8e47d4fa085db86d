/*
 * The runs of an instance in shared memory: seen by all, forgotten in order, cancelled once, adopted when their worker
 * dies.
 */
#include "common/run_table.h"
#include "tests/unit/unit.h"

#define MAX_RUNS 4
#define HISTORY  3

static struct scoreboard *board;
static uint64_t me; /* serial of a living worker */
static int my_slot;

static int set_up(void **state)
{
    (void)state;
    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = MAX_RUNS, .run_history = HISTORY}, NULL);
    my_slot = scoreboard_take_slot(board, 1);
    me = atomic_load(&board->slots[my_slot].serial);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    scoreboard_free(board);
    return 0;
}

static struct run_entry begin(uint64_t id)
{
    struct run_entry entry;

    assert_true(run_entry_take(&entry, board, me, id));
    entry.record.started_us = (int64_t)id * 1000;
    run_entry_set(&entry, RUN_STRING_MODEL, "m-1", 3);
    run_entry_publish(&entry);
    return entry;
}

static void end(struct run_entry *entry, enum run_status status)
{
    if (run_entry_begin_end(entry))
        status = RUN_STATUS_CANCELLED;
    entry->record.status = (uint8_t)status;
    run_entry_end(entry);
}

/* The ids of a list, as digits: tests use ids below 10. */
static const char *list(int status, uint64_t before, size_t limit)
{
    static char digits[64];
    const struct run_filter filter = {.status = status, .before = before};
    struct run_copy copy = {.text = NULL};
    unsigned *indices;
    int count = run_table_list(board, &filter, limit, &indices);

    snprintf(digits, sizeof digits, "%s", count < 0 ? "unknown" : "");
    for (int i = 0; i < count; i++) {
        assert_int_equal(run_table_read(board, indices[i], &copy), RUN_READ_OK);
        snprintf(digits + i, 2, "%d", (int)copy.record.id);
    }
    free(indices);
    run_copy_release(&copy);
    return digits;
}

static void check_string(const struct run_copy *copy, enum run_string which, const char *wanted, size_t wanted_length)
{
    size_t length;
    const char *text = run_copy_string(copy, which, &length);

    if (wanted == NULL) {
        assert_null(text);
        return;
    }
    assert_int_equal(length, wanted_length);
    assert_memory_equal(text, wanted, length);
}

static void test_what_is_published_is_read(void **state)
{
    struct run_copy copy = {.text = NULL};
    struct run_entry entry;

    (void)state;
    assert_true(run_entry_take(&entry, board, me, 7));
    run_entry_set(&entry, RUN_STRING_PROMPT, "a\0b", 3);
    run_entry_set(&entry, RUN_STRING_TEAM_ID, "", 0);
    assert_int_equal(run_table_find(board, 7), -1); /* nobody sees it before it is whole */
    assert_string_equal(list(-1, 0, 9), "");
    run_entry_publish(&entry);
    run_entry_set(&entry, RUN_STRING_MODEL, "later", 5);
    entry.record.cost_usd = 0.5;
    assert_int_equal(run_table_read(board, (unsigned)run_table_find(board, 7), &copy), RUN_READ_OK);
    check_string(&copy, RUN_STRING_PROMPT, "a\0b", 3);
    check_string(&copy, RUN_STRING_TEAM_ID, "", 0);
    check_string(&copy, RUN_STRING_MODEL, NULL, 0);
    assert_true(copy.record.cost_usd == 0);
    run_entry_publish(&entry);
    assert_int_equal(run_table_read(board, entry.index, &copy), RUN_READ_OK);
    check_string(&copy, RUN_STRING_MODEL, "later", 5);
    assert_true(copy.record.cost_usd == 0.5);
    run_copy_release(&copy);
}

static void test_texts_are_cut_between_characters(void **state)
{
    static char long_text[RUN_RAW_PROMPT_MAX_BYTES + 100];
    struct run_copy copy = {.text = NULL};
    struct run_entry entry;
    size_t length;

    (void)state;
    for (size_t i = 0; i + 3 < sizeof long_text; i += 3)
        memcpy(long_text + i, "\xe2\x9c\x93", 3);
    assert_true(run_entry_take(&entry, board, me, 7));
    run_entry_set(&entry, RUN_STRING_RAW_PROMPT, long_text, sizeof long_text);
    run_entry_set(&entry, RUN_STRING_CONFIG, long_text, RUN_CONFIG_MAX_BYTES);
    run_entry_set(&entry, RUN_STRING_ERROR, long_text, sizeof long_text);
    for (int i = 0; i < 1000; i++) /* the place for texts ends, not the memory */
        run_entry_set(&entry, RUN_STRING_MODEL, long_text, sizeof long_text);
    run_entry_publish(&entry);
    assert_int_equal(run_table_read(board, entry.index, &copy), RUN_READ_OK);
    assert_non_null(run_copy_string(&copy, RUN_STRING_RAW_PROMPT, &length));
    assert_int_equal(length, RUN_RAW_PROMPT_MAX_BYTES / 3 * 3);
    assert_non_null(run_copy_string(&copy, RUN_STRING_ERROR, &length));
    assert_int_equal(length, RUN_ERROR_MAX_BYTES / 3 * 3);
    run_copy_release(&copy);
}

/* Wherever the room for short texts ends: nothing is lost there, nor written into a neighbour's. */
static void test_texts_of_all_lengths_stand_beside_others(void **state)
{
    struct run_copy copy = {.text = NULL};
    struct run_entry left = begin(1), right = begin(2);
    char text[3000];

    (void)state;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)('!' + i % 89);
    run_entry_set(&right, RUN_STRING_PROMPT, text, 100);
    run_entry_publish(&right);
    run_entry_set(&left, RUN_STRING_RESULT_SUBTYPE, text + 1, 100);
    for (size_t length = 0; length < sizeof text / 2; length++) {
        left.record.text_bytes = left.record.strings[RUN_STRING_RESULT_SUBTYPE].offset + RUN_NAME_MAX_BYTES;
        run_entry_set(&left, RUN_STRING_RAW_PROMPT, text + 2, length);
        run_entry_set(&left, RUN_STRING_CONFIG, text + 3, length);
        run_entry_publish(&left);
        assert_int_equal(run_table_read(board, left.index, &copy), RUN_READ_OK);
        check_string(&copy, RUN_STRING_RESULT_SUBTYPE, text + 1, 100);
        check_string(&copy, RUN_STRING_RAW_PROMPT, text + 2, length);
        check_string(&copy, RUN_STRING_CONFIG, text + 3, length);
    }
    assert_int_equal(run_table_read(board, right.index, &copy), RUN_READ_OK);
    check_string(&copy, RUN_STRING_PROMPT, text, 100);
    run_copy_release(&copy);
}

static void test_lists_are_newest_first_and_filtered(void **state)
{
    struct run_entry entries[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++)
        entries[i] = begin(i + 1);
    assert_string_equal(list(-1, 0, 9), "4321");
    assert_string_equal(list(-1, 0, 2), "43");
    assert_string_equal(list(-1, 3, 9), "21");
    assert_string_equal(list(-1, 9, 9), "unknown");
    end(&entries[1], RUN_STATUS_ERROR);
    end(&entries[3], RUN_STATUS_COMPLETED);
    assert_string_equal(list(RUN_STATUS_RUNNING, 0, 9), "31");
    assert_string_equal(list(RUN_STATUS_ERROR, 0, 9), "2");
    assert_string_equal(list(RUN_STATUS_COMPLETED, 3, 9), "");
}

static void test_the_oldest_ended_run_is_forgotten_first(void **state)
{
    struct run_entry old = begin(9), entry;

    (void)state;
    for (uint64_t id = 1; id <= 5; id++) {
        entry = begin(id);
        end(&entry, RUN_STATUS_COMPLETED);
    }
    assert_string_equal(list(-1, 0, 99), "5439"); /* the live one stays, however old */
    end(&old, RUN_STATUS_COMPLETED);
    assert_string_equal(list(-1, 0, 99), "549");
    assert_int_equal(run_table_find(board, 3), -1);
}

static void test_a_leased_run_is_forgotten_only_when_there_is_no_other_slot(void **state)
{
    struct run_entry first = begin(8), entry;
    unsigned slots = board->run_slots;

    (void)state;
    run_lease_hold(board, run_entry_lease_name(&first), RUN_LEASE_DELETING, "isand", 5);
    end(&first, RUN_STATUS_COMPLETED);
    for (uint64_t id = 100; id < 100 + 2 * slots; id++) {
        entry = begin(id);
        end(&entry, RUN_STATUS_COMPLETED);
    }
    assert_true(run_table_find(board, 8) >= 0);
    assert_int_equal(run_table_count_leases(board, me), 1);
    for (uint64_t id = 1000; id < 1000 + slots; id++)
        entry = begin(id);
    assert_int_equal(run_table_find(board, 8), -1);
    run_lease_clear(board, run_entry_lease_name(&first)); /* the slot is another's: nothing happens to it */
    assert_false(run_entry_take(&entry, board, me, 5));   /* all are live */
}

static void test_an_id_is_taken_once(void **state)
{
    struct run_entry entry = begin(1), other;

    (void)state;
    assert_false(run_entry_take(&other, board, me, 1));
    assert_false(run_entry_take(&other, board, me, 0));
    end(&entry, RUN_STATUS_COMPLETED);
    assert_false(run_entry_take(&other, board, me, 1)); /* it is still known */
}

static void test_a_cancel_is_accepted_once_and_only_before_the_end(void **state)
{
    struct run_entry entry = begin(1), other = begin(2);
    enum run_status status = RUN_STATUS_RUNNING;
    uint64_t owner = 0;

    (void)state;
    assert_int_equal(run_table_cancel(board, 77, &owner, &status), RUN_CANCEL_UNKNOWN);
    assert_int_equal(run_table_cancel(board, 1, &owner, &status), RUN_CANCEL_ACCEPTED);
    assert_true(owner == me);
    assert_true(run_entry_is_cancelled(&entry));
    assert_false(run_entry_is_cancelled(&other));
    assert_int_equal(run_table_cancel(board, 1, &owner, &status), RUN_CANCEL_REPEATED);
    end(&entry, RUN_STATUS_COMPLETED);
    assert_int_equal(run_table_cancel(board, 1, &owner, &status), RUN_CANCEL_REPEATED);
    assert_string_equal(list(RUN_STATUS_CANCELLED, 0, 9), "1");
    end(&other, RUN_STATUS_ERROR);
    assert_int_equal(run_table_cancel(board, 2, &owner, &status), RUN_CANCEL_ENDED);
    assert_int_equal(status, RUN_STATUS_ERROR);
}

static uint64_t new_worker(int *slot)
{
    *slot = scoreboard_take_slot(board, 2);
    return atomic_load(&board->slots[*slot].serial);
}

static void test_what_a_dead_worker_left_is_adopted_once(void **state)
{
    struct run_entry live = begin(1), ended = begin(2), plain = begin(3), half;
    struct run_copy copy = {.text = NULL};
    struct run_orphan orphan, orphans[2];
    unsigned cursor = 0;
    int slot;
    uint64_t heir = new_worker(&slot);

    (void)state;
    run_lease_hold(board, run_entry_lease_name(&live), RUN_LEASE_LIVE, "ilive", 55);
    run_lease_hold(board, run_entry_lease_name(&ended), RUN_LEASE_DELETING, "iended", 66);
    run_entry_mark_foreign(&ended);
    end(&ended, RUN_STATUS_COMPLETED);
    end(&plain, RUN_STATUS_COMPLETED);
    assert_true(run_entry_take(&half, board, me, 4));
    assert_false(run_table_adopt(board, heir, &cursor, &orphan)); /* its owner lives */
    (void)scoreboard_release_slot(board, my_slot);
    cursor = 0;
    for (size_t i = 0; i < COUNT(orphans); i++)
        assert_true(run_table_adopt(board, heir, &cursor, &orphans[i]));
    orphan = orphans[orphans[0].entry.record.id != 1]; /* which slots they have is nobody's business */
    assert_true(orphan.was_live && !orphan.was_cancelled && !orphan.is_foreign);
    assert_int_equal(orphan.lease, RUN_LEASE_LIVE);
    assert_string_equal(orphan.sandbox_id, "ilive");
    assert_int_equal(orphan.expires_ms, 55);
    orphan.entry.record.status = RUN_STATUS_ERROR;
    run_entry_set(&orphan.entry, RUN_STRING_ERROR_CODE, "worker_lost", 11);
    run_entry_end(&orphan.entry);
    assert_int_equal(run_table_read(board, live.index, &copy), RUN_READ_OK);
    check_string(&copy, RUN_STRING_MODEL, "m-1", 3);
    check_string(&copy, RUN_STRING_ERROR_CODE, "worker_lost", 11);
    orphan = orphans[orphans[0].entry.record.id == 1];
    assert_true(!orphan.was_live && orphan.is_foreign);
    assert_string_equal(orphan.sandbox_id, "iended");
    assert_false(run_table_adopt(board, heir, &cursor, &orphan));
    cursor = 0;
    assert_false(run_table_adopt(board, heir, &cursor, &orphan)); /* they are the heir's now */
    assert_int_equal(run_table_count_leases(board, heir), 2);
    run_copy_release(&copy);
    run_lease_clear(board, run_entry_lease_name(&ended));
    (void)scoreboard_release_slot(board, slot);
    heir = new_worker(&slot);
    cursor = 0;
    assert_true(run_table_adopt(board, heir, &cursor, &orphan)); /* the heir died too: its one lease goes on */
    assert_string_equal(orphan.sandbox_id, "ilive");
    assert_false(orphan.was_live);
    assert_false(run_table_adopt(board, heir, &cursor, &orphan));
}

static void test_who_adopts_a_search_knows_when_it_ends(void **state)
{
    struct run_entry entry = begin(1);
    struct run_orphan orphan;
    unsigned cursor = 0;
    int slot;
    uint64_t heir = new_worker(&slot);

    (void)state;
    run_lease_hold(board, run_entry_lease_name(&entry), RUN_LEASE_DELETING, "ibefore", 55);
    run_lease_creating(board, run_entry_lease_name(&entry), 0);
    (void)scoreboard_release_slot(board, my_slot);
    assert_true(run_table_adopt(board, heir, &cursor, &orphan));
    assert_int_equal(orphan.lease, RUN_LEASE_CREATING);
    assert_int_equal(orphan.expires_ms, 0); /* its create was under way */
    run_entry_end(&orphan.entry);
    run_lease_creating(board, run_entry_lease_name(&entry), 77);
    (void)scoreboard_release_slot(board, slot);
    heir = new_worker(&slot);
    cursor = 0;
    assert_true(run_table_adopt(board, heir, &cursor, &orphan));
    assert_int_equal(orphan.expires_ms, 77);
}

static void test_ids_are_sixteen_hex_digits(void **state)
{
    char text[RUN_ID_DIGITS + 1];
    uint64_t id;

    (void)state;
    run_id_format(0x0123456789abcdef, text);
    assert_string_equal(text, "0123456789abcdef");
    assert_true(run_id_parse(text, 16, &id));
    assert_true(id == 0x0123456789abcdef);
    assert_false(run_id_parse("0123456789ABCDEF", 16, &id));
    assert_false(run_id_parse("0123456789abcde", 15, &id));
    assert_false(run_id_parse("0123456789abcdeg", 16, &id));
    assert_false(run_id_parse("0000000000000000", 16, &id));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_is_published_is_read),
        TEST(test_texts_are_cut_between_characters),
        TEST(test_texts_of_all_lengths_stand_beside_others),
        TEST(test_lists_are_newest_first_and_filtered),
        TEST(test_the_oldest_ended_run_is_forgotten_first),
        TEST(test_who_adopts_a_search_knows_when_it_ends),
        TEST(test_a_leased_run_is_forgotten_only_when_there_is_no_other_slot),
        TEST(test_an_id_is_taken_once),
        TEST(test_a_cancel_is_accepted_once_and_only_before_the_end),
        TEST(test_what_a_dead_worker_left_is_adopted_once),
        TEST(test_ids_are_sixteen_hex_digits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
