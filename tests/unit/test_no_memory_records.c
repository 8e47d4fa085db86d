/* What is kept of runs and of what they print: each request for memory refused in turn, and each is told. */
#include "tests/unit/failing_memory.h"

#include "common/run_table.h"
#include "worker/connect_rpc.h"
#include "worker/history.h"
#include "worker/history_store.h"
#include "worker/line_buffer.h"
#include "worker/memory_watch.h"
#include "worker/page.h"
#include "worker/run_record.h"
#include "worker/spool.h"
#include "worker/stderr_text.h"

#include <fcntl.h>
#include <unistd.h>

#define RUNS 3

static char home[] = "/tmp/sandstorm-memory-XXXXXX";
static struct event_base *base;
static struct scoreboard *board;
static struct run_entry entries[RUNS];
static int slot;

static const char *at(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", home, name);
    return path;
}

/* --- the table ------------------------------------------------------------------------------------------ */

static bool read_run(void)
{
    struct run_copy copy = {.text = NULL};
    enum run_read result = run_table_read(board, entries[0].index, &copy);
    size_t length;

    assert_true(result == RUN_READ_NO_MEMORY || result == RUN_READ_OK);
    if (result == RUN_READ_OK)
        assert_memory_equal(run_copy_string(&copy, RUN_STRING_PROMPT, &length), "a prompt", 8);
    run_copy_release(&copy);
    return result == RUN_READ_OK;
}

static bool list_runs(void)
{
    const struct run_filter filter = {.status = -1};
    unsigned *indices;
    int found = run_table_list(board, &filter, 100, &indices);

    assert_true(found == RUNS || found == -2);
    free(indices);
    return found == RUNS;
}

static bool write_record(void)
{
    struct run_copy copy = {.text = NULL};
    struct evbuffer *out = evbuffer_new();
    bool good = out != NULL && run_table_read(board, entries[0].index, &copy) == RUN_READ_OK &&
                run_record_write(&copy, RUN_RAW_PROMPT_MAX_BYTES, out);

    run_copy_release(&copy);
    if (out != NULL)
        evbuffer_free(out);
    return good;
}

static void test_the_table_of_runs(void **state)
{
    (void)state;
    memory_sweep("run_table_read", read_run);
    memory_sweep("run_table_list", list_runs);
    memory_sweep("run_record_write", write_record);
}

/* --- the history ---------------------------------------------------------------------------------------- */

static long history_bytes(void)
{
    int fd = open(at("runs.jsonl"), O_RDONLY);
    long bytes = fd >= 0 ? (long)lseek(fd, 0, SEEK_END) : 0;

    if (fd >= 0)
        close(fd);
    return bytes;
}

/* A line that is lost is counted, and the worker says that its history fails until one is written. */
static bool append_to_history(void)
{
    struct history *history = history_new(base, board, slot, home);
    long before = history_bytes();
    bool written;

    if (history == NULL)
        return false;
    history_append(history, entries[0].index);
    (void)history_works(history); /* writes what waits */
    history_free(history);
    written = history_bytes() > before;
    return written;
}

static void test_a_line_of_the_history(void **state)
{
    (void)state;
    memory_sweep("history_append", append_to_history);
}

/* What was restored is whole. */
static bool restore_history(void)
{
    struct scoreboard *other = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 4, .run_history = 4}, NULL);
    bool whole;

    assert_non_null(other);
    whole = !history_restore(home, other) || atomic_load(&other->ended_runs) == RUNS;
    scoreboard_free(other);
    return whole;
}

static bool compact_history(void)
{
    return history_compact(home, board);
}

static void test_the_history_of_before(void **state)
{
    struct history *history = history_new(base, board, slot, home);

    (void)state;
    assert_non_null(history);
    for (size_t i = 0; i < RUNS; i++) {
        assert_false(run_entry_begin_end(&entries[i]));
        entries[i].record.status = RUN_STATUS_COMPLETED;
        entries[i].record.ended_us = entries[i].record.started_us + 1;
        run_entry_end(&entries[i]);
        history_append(history, entries[i].index);
    }
    assert_true(history_works(history));
    history_free(history);
    memory_survive("history_restore", restore_history);
    memory_sweep("history_compact", compact_history);
}

/* --- bytes of agents ------------------------------------------------------------------------------------ */

static bool keep_in_spool(void)
{
    struct spool *spool = spool_new(true);
    bool good = spool != NULL && spool_add(spool, "some bytes", 10);

    spool_free(spool);
    return good;
}

static bool on_line(void *context, const char *line, size_t length)
{
    (void)line;
    *(size_t *)context += length;
    return true;
}

static bool feed_lines(void)
{
    struct line_buffer lines;
    size_t seen = 0;
    bool good;

    line_buffer_init(&lines, 4096);
    good = line_buffer_feed(&lines, "half ", 5, on_line, &seen) == LINE_OK &&
           line_buffer_feed(&lines, "a line\n", 7, on_line, &seen) == LINE_OK && seen == 11;
    line_buffer_release(&lines);
    return good;
}

static bool on_envelope(void *context, bool end_of_stream, const char *payload, size_t length)
{
    (void)end_of_stream;
    (void)payload;
    *(size_t *)context += length;
    return true;
}

static bool feed_envelopes(void)
{
    struct envelope_reader reader;
    char bytes[CONNECT_HEADER_BYTES + 4] = "     body";
    size_t seen = 0;
    bool good;

    envelope_header((unsigned char *)bytes, 4);
    envelope_reader_init(&reader);
    good = envelope_reader_feed(&reader, bytes, sizeof bytes - 2, on_envelope, &seen) == CONNECT_OK &&
           envelope_reader_feed(&reader, bytes + sizeof bytes - 2, 2, on_envelope, &seen) == CONNECT_OK && seen == 4;
    envelope_reader_release(&reader);
    return good;
}

/* An event that is missing was counted as refused. */
static bool take_stderr(void)
{
    struct stderr_text text = {0};
    unsigned long refusals = memory_refusals();
    bool good = stderr_text_append(&text, "one\n\xff two", 9);
    json_t *lines = good ? stderr_text_take_lines(&text) : NULL;
    json_t *rest = good ? stderr_text_take_rest(&text) : NULL;

    json_decref(lines);
    json_decref(rest);
    stderr_text_release(&text);
    return !good || (lines != NULL && rest != NULL) || memory_refusals() != refusals;
}

static void test_what_an_agent_prints(void **state)
{
    (void)state;
    memory_sweep("spool_add", keep_in_spool);
    memory_sweep("line_buffer_feed", feed_lines);
    memory_sweep("envelope_reader_feed", feed_envelopes);
    memory_survive("stderr_text", take_stderr);
}

static bool make_page(void)
{
    static const char text[] = "<style>a</style><script>b</script>";
    struct page *page = page_new(text, sizeof text - 1);

    page_free(page);
    return page != NULL;
}

static void test_a_page(void **state)
{
    (void)state;
    memory_sweep("page_new", make_page);
}

static int set_up(void **state)
{
    (void)state;
    if (mkdtemp(home) == NULL)
        return -1;
    base = event_base_new();
    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 4, .run_history = 4}, NULL);
    if (base == NULL || board == NULL)
        return -1;
    slot = scoreboard_take_slot(board, 1);
    for (size_t i = 0; i < RUNS; i++) {
        if (!run_entry_take(&entries[i], board, atomic_load(&board->slots[slot].serial), i + 1))
            return -1;
        entries[i].record.started_us = (int64_t)i + 1;
        run_entry_set(&entries[i], RUN_STRING_PROMPT, "a prompt", 8);
        run_entry_set(&entries[i], RUN_STRING_CONFIG, "{\"model\":\"m\",\"allowed_tools\":[\"Read\"]}", 39);
        run_entry_publish(&entries[i]);
    }
    return 0;
}

static int tear_down(void **state)
{
    static const char *const files[] = {"runs.jsonl", "runs.jsonl.new", ""};

    (void)state;
    scoreboard_free(board);
    event_base_free(base);
    for (size_t i = 0; i < COUNT(files); i++)
        remove(at(files[i]));
    return access(home, F_OK) == 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_table_of_runs),
        cmocka_unit_test(test_a_line_of_the_history),
        cmocka_unit_test(test_the_history_of_before),
        cmocka_unit_test(test_what_an_agent_prints),
        cmocka_unit_test(test_a_page),
    };

    memory_watch_start();
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
