/* The record of a run as JSON, and lines of a history read back: ours, those of the Python reference, and garbage. */
#include "common/run_table.h"
#include "tests/unit/unit.h"
#include "worker/run_record.h"
#include "worker/timestamp.h"

#include <jansson.h>
#include <math.h>

#define ID       UINT64_C(0x00c0ffee00c0ffee)
#define ID_TEXT  "00c0ffee00c0ffee"
#define STARTED  INT64_C(1769853600123456)
#define NO_LIMIT RUN_RAW_PROMPT_MAX_BYTES

static struct scoreboard *board;

static int set_up(void **state)
{
    (void)state;
    board = scoreboard_new(&(struct scoreboard_sizes){.max_runs = 4, .run_history = 4}, NULL);
    return board == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    scoreboard_free(board);
    return 0;
}

/* --- small things --------------------------------------------------------------------------------------- */

static struct run_entry begin(uint64_t id)
{
    struct run_entry entry;

    assert_true(run_entry_take(&entry, board, 1, id));
    return entry;
}

static void set(struct run_entry *entry, enum run_string which, const char *text)
{
    run_entry_set(entry, which, text, strlen(text));
}

/* What the record is as JSON; a static buffer. */
static const char *written(const struct run_entry *entry, size_t raw_prompt_max_bytes)
{
    static char text[400000];
    struct evbuffer *out = evbuffer_new();
    struct run_copy copy = {.text = NULL};
    size_t length;

    assert_int_equal(run_table_read(board, entry->index, &copy), RUN_READ_OK);
    assert_true(run_record_write(&copy, raw_prompt_max_bytes, out));
    length = evbuffer_get_length(out);
    assert_true(length < sizeof text);
    evbuffer_remove(out, text, length);
    text[length] = '\0';
    evbuffer_free(out);
    run_copy_release(&copy);
    return text;
}

/* A member of the record as JSON; a static buffer. */
static const char *written_member(const struct run_entry *entry, size_t raw_prompt_max_bytes, const char *key)
{
    static char text[400000];
    json_t *record = json_loads(written(entry, raw_prompt_max_bytes), JSON_ALLOW_NUL, NULL);
    char *dump;

    assert_non_null(record);
    dump = json_dumps(json_object_get(record, key),
                      JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT | JSON_REAL_PRECISION(15));
    assert_non_null(dump);
    snprintf(text, sizeof text, "%s", dump);
    free(dump);
    json_decref(record);
    return text;
}

static struct run_entry restore(const char *line)
{
    struct run_record_summary summary;
    struct run_entry entry;

    assert_true(run_record_summarise(line, strlen(line), &summary));
    assert_true(run_entry_take_ended(&entry, board, summary.id, summary.by_cancel));
    assert_true(run_record_read(line, strlen(line), &entry));
    run_entry_end(&entry);
    return entry;
}

/* --- writing ------------------------------------------------------------------------------------------- */

static void test_all_keys_stand_in_their_order(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    set(&entry, RUN_STRING_PROMPT, "hi");
    set(&entry, RUN_STRING_RAW_PROMPT, "hi");
    entry.record.started_us = STARTED;
    run_entry_publish(&entry);
    assert_string_equal(
        written(&entry, NO_LIMIT),
        "{\"id\":\"" ID_TEXT "\",\"prompt\":\"hi\",\"model\":null,\"status\":\"running\","
        "\"started_at\":\"2026-01-31T10:00:00.123456+00:00\",\"cost_usd\":null,\"num_turns\":null,"
        "\"duration_secs\":null,\"error\":null,\"files_count\":0,\"feedback\":null,\"feedback_user\":null,"
        "\"raw_prompt\":\"hi\",\"agent_session_id\":null,\"sandbox_id\":null,\"team_id\":null,\"user_id\":null,"
        "\"channel_id\":null,\"thread_ts\":null,\"config_snapshot\":null,\"error_code\":null,\"result_subtype\":null,"
        "\"exit_code\":null,\"prompt_truncated\":false,\"trigger\":null,\"runtime\":\"e2b\",\"ended_at\":null}");
}

static void test_an_ended_run_has_all_it_may_have(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    for (int i = 0; i < RUN_STRING_COUNT; i++) {
        char text[8];

        snprintf(text, sizeof text, "s%d", i);
        set(&entry, (enum run_string)i, i == RUN_STRING_CONFIG ? "{ \"model\":\n\"m\" }" : text);
    }
    entry.record.started_us = STARTED;
    entry.record.ended_us = STARTED + 2500000;
    entry.record.duration_us = 2500000;
    entry.record.num_turns = 3;
    entry.record.has_cost = true;
    entry.record.cost_usd = 0.01;
    entry.record.has_exit_code = true;
    entry.record.exit_code = -9;
    entry.record.files_count = 2;
    entry.record.prompt_truncated = true;
    entry.record.is_local = true;
    entry.record.status = RUN_STATUS_CANCELLED;
    run_entry_publish(&entry);
    assert_string_equal(
        written(&entry, NO_LIMIT),
        "{\"id\":\"" ID_TEXT "\",\"prompt\":\"s0\",\"model\":\"s2\",\"status\":\"cancelled\","
        "\"started_at\":\"2026-01-31T10:00:00.123456+00:00\",\"cost_usd\":0.01,\"num_turns\":3,\"duration_secs\":2.5,"
        "\"error\":\"s3\",\"files_count\":2,\"feedback\":null,\"feedback_user\":null,\"raw_prompt\":\"s1\","
        "\"agent_session_id\":\"s5\",\"sandbox_id\":\"s6\",\"team_id\":\"s7\",\"user_id\":\"s8\",\"channel_id\":\"s9\","
        "\"thread_ts\":null,\"config_snapshot\":{\"model\":\"m\"},\"error_code\":\"s4\",\"result_subtype\":\"s11\","
        "\"exit_code\":-9,\"prompt_truncated\":true,\"trigger\":\"s12\",\"runtime\":\"local\","
        "\"ended_at\":\"2026-01-31T10:00:02.623456+00:00\"}");
}

static const struct {
    double cost;
    const char *text;
} costs[] = {
    {0.01, "0.01"},
    {1, "1.0"},
    {0, "0.0"},
    {0.1 + 0.2, "0.30000000000000004"},
    {1.0 / 3, "0.3333333333333333"},
    {123456789, "123456789.0"},
    {0.00001, "1e-05"},
    {1e22, "1e+22"},
    {HUGE_VAL, "null"},
};

static void test_floats_are_spelled_as_python_spells_them(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    for (size_t i = 0; i < COUNT(costs); i++) {
        char wanted[64];

        entry.record.has_cost = true;
        entry.record.cost_usd = costs[i].cost;
        run_entry_publish(&entry);
        snprintf(wanted, sizeof wanted, "\"cost_usd\":%s,", costs[i].text);
        assert_non_null(strstr(written(&entry, NO_LIMIT), wanted));
    }
}

static const struct {
    const char *text;
    size_t length;
    const char *json;
} texts[] = {
    {"plain", 5, "\"plain\""},
    {"a\0b", 3, "\"a\\u0000b\""},
    {"\n\"\\\x01", 4, "\"\\n\\\"\\\\\\u0001\""},
    {"a\xff\xc3(", 4, "\"a\xef\xbf\xbd\xef\xbf\xbd(\""},
    {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
    {"\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\""},
};

static void test_any_bytes_become_a_json_string(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    for (size_t i = 0; i < COUNT(texts); i++) {
        char wanted[64];

        run_entry_set(&entry, RUN_STRING_ERROR, texts[i].text, texts[i].length);
        run_entry_publish(&entry);
        snprintf(wanted, sizeof wanted, "\"error\":%s,", texts[i].json);
        assert_non_null(strstr(written(&entry, NO_LIMIT), wanted));
    }
}

static const struct {
    const char *prompt;
    size_t max_bytes;
    const char *json;
    const char *truncated;
} prompts[] = {
    {"abcdef", 6, "\"abcdef\"", "false"},    {"abcdef", 4, "\"abcd\"", "true"},
    {"a\xc3\xa4z", 2, "\"a\"", "true"},      {"a\xc3\xa4z", 3, "\"a\\u00E4\"", "true"},
    {"\xf0\x9f\x98\x80", 3, "\"\"", "true"}, {"", 0, "\"\"", "false"},
};

static void test_a_long_prompt_is_cut_between_characters(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    for (size_t i = 0; i < COUNT(prompts); i++) {
        set(&entry, RUN_STRING_RAW_PROMPT, prompts[i].prompt);
        run_entry_publish(&entry);
        assert_string_equal(written_member(&entry, prompts[i].max_bytes, "raw_prompt"), prompts[i].json);
        assert_string_equal(written_member(&entry, prompts[i].max_bytes, "prompt_truncated"), prompts[i].truncated);
    }
}

static void test_a_configuration_that_was_cut_is_null(void **state)
{
    struct run_entry entry = begin(ID);

    (void)state;
    set(&entry, RUN_STRING_CONFIG, "{\"files\":{\"a\":1");
    run_entry_publish(&entry);
    assert_string_equal(written_member(&entry, NO_LIMIT, "config_snapshot"), "null");
}

/* --- reading ------------------------------------------------------------------------------------------- */

#define BEGIN "{\"id\":\"" ID_TEXT "\""

static const struct {
    const char *line; /* behind the id */
    const char *key;
    const char *json;
} readings[] = {
    {"", "status", "\"error\""},
    {"", "prompt", "null"},
    {"", "started_at", "null"},
    {"", "cost_usd", "null"},
    {"", "num_turns", "null"},
    {"", "duration_secs", "null"},
    {"", "files_count", "0"},
    {"", "prompt_truncated", "false"},
    {"", "exit_code", "null"},
    {"", "runtime", "\"e2b\""},
    {"", "config_snapshot", "null"},
    {",\"status\":\"completed\"", "status", "\"completed\""},
    {",\"status\":\"cancelled\"", "status", "\"cancelled\""},
    {",\"status\":\"lost\"", "status", "\"error\""},
    {",\"status\":7", "status", "\"error\""},
    {",\"status\":\"running\"", "status", "\"error\""},
    {",\"status\":\"running\"", "error_code", "\"server_shutdown\""},
    {",\"status\":\"running\"", "error", "\"server restarted\""},
    {",\"status\":\"running\"", "ended_at", "null"},
    {",\"unknown\":{\"a\":[1]},\"cost_usd\":2", "cost_usd", "2.0"},
    {",\"cost_usd\":1e999", "cost_usd", "null"},
    {",\"cost_usd\":\"2\"", "cost_usd", "null"},
    {",\"cost_usd\":-1", "cost_usd", "null"},
    {",\"cost_usd\":1,\"cost_usd\":3", "cost_usd", "3.0"},
    {",\"num_turns\":3.0", "num_turns", "3"},
    {",\"num_turns\":true", "num_turns", "null"},
    {",\"num_turns\":1e300", "num_turns", "null"},
    {",\"files_count\":-3", "files_count", "0"},
    {",\"duration_secs\":0.1", "duration_secs", "0.1"},
    {",\"exit_code\":-1", "exit_code", "-1"},
    {",\"exit_code\":99999999999", "exit_code", "null"},
    {",\"model\":[\"m\"]", "model", "null"},
    {",\"model\":\"\\u00e4\\u0000\\ud83d\\ude00\"", "model", "\"\\u00E4\\u0000\\uD83D\\uDE00\""},
    {",\"prompt_truncated\":true", "prompt_truncated", "true"},
    {",\"prompt_truncated\":1", "prompt_truncated", "false"},
    {",\"runtime\":\"local\"", "runtime", "\"local\""},
    {",\"started_at\":\"2026-01-31T10:00:00+00:00\"", "started_at", "\"2026-01-31T10:00:00.000000+00:00\""},
    {",\"started_at\":\"2026-01-31T12:00:00.5+02:00\"", "started_at", "\"2026-01-31T10:00:00.500000+00:00\""},
    {",\"started_at\":\"2026-01-31T10:00:00Z\"", "started_at", "\"2026-01-31T10:00:00.000000+00:00\""},
    {",\"started_at\":\"yesterday\"", "started_at", "null"},
    {",\"started_at\":17", "started_at", "null"},
    {",\"feedback\":\"good\"", "feedback", "null"},
    {",\"config_snapshot\":\"x\"", "config_snapshot", "null"},
    {",\"config_snapshot\":{\"model\":\"m\",\"secret\":\"x\",\"max_turns\":3,\"timeout\":\"5\",\"files\":null}",
     "config_snapshot", "{\"model\":\"m\",\"max_turns\":3,\"timeout\":null,\"allowed_tools\":null,\"files\":null}"},
    {",\"config_snapshot\":{\"allowed_tools\":[\"A\", \"B\"],\"files\":{\"a\":\"\\u00e4bc\",\"b\":17,\"c\":null}}",
     "config_snapshot",
     "{\"model\":null,\"max_turns\":null,\"timeout\":null,\"allowed_tools\":[\"A\",\"B\"],\"files\":{\"a\":4,\"b\":17,"
     "\"c\":null}}"},
    {",\"config_snapshot\":{\"files\":[\"a\",{\"path\":\"b\",\"content\":\"xyz\"},7,{\"content\":\"secret\"}]}",
     "config_snapshot",
     "{\"model\":null,\"max_turns\":null,\"timeout\":null,\"allowed_tools\":null,\"files\":{\"a\":null,\"b\":3}}"},
};

static void test_what_a_line_says_is_the_record(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(readings); i++) {
        char line[512];
        struct run_entry entry;

        snprintf(line, sizeof line, BEGIN "%s}", readings[i].line);
        tear_down(NULL);
        set_up(NULL);
        entry = restore(line);
        assert_string_equal(written_member(&entry, NO_LIMIT, readings[i].key), readings[i].json);
    }
}

static void test_a_row_of_the_reference_is_taken_without_its_file_contents(void **state)
{
    static const char row[] =
        "{\"id\": \"" ID_TEXT "\", \"prompt\": \"do it\", \"model\": \"m\", \"status\": \"completed\", "
        "\"started_at\": \"2026-01-31T10:00:00.123456+00:00\", \"cost_usd\": 0.25, \"num_turns\": 4, "
        "\"duration_secs\": 1.5, \"error\": null, \"files_count\": 1, \"feedback\": \"up\", \"feedback_user\": \"U\", "
        "\"raw_prompt\": \"do it\", \"agent_session_id\": \"s\", \"sandbox_id\": null, \"team_id\": \"T\", "
        "\"user_id\": \"U\", \"channel_id\": \"C\", \"thread_ts\": \"1.2\", \"config_snapshot\": {\"model\": \"m\", "
        "\"max_turns\": null, \"timeout\": 300, \"allowed_tools\": null, \"files\": {\"a.txt\": \"TOP SECRET\"}}}";
    struct run_record_summary summary;
    struct run_entry entry;
    const char *text;

    (void)state;
    assert_true(run_record_summarise(row, strlen(row), &summary));
    assert_false(summary.is_ours);
    entry = restore(row);
    text = written(&entry, NO_LIMIT);
    assert_null(strstr(text, "SECRET"));
    assert_non_null(strstr(text, "\"files\":{\"a.txt\":10}"));
    assert_non_null(strstr(text, "\"duration_secs\":1.5,"));
    assert_non_null(strstr(text, "\"team_id\":\"T\",\"user_id\":\"U\",\"channel_id\":\"C\",\"thread_ts\":null,"));
    assert_non_null(strstr(text, "\"ended_at\":null}"));
}

static void test_a_record_comes_back_as_it_was_written(void **state)
{
    struct run_entry entry = begin(ID), again;
    struct run_record_summary summary;
    char *line, *prompt = malloc(RUN_RAW_PROMPT_MAX_BYTES);

    (void)state;
    memset(prompt, '\x02', RUN_RAW_PROMPT_MAX_BYTES);
    run_entry_set(&entry, RUN_STRING_RAW_PROMPT, prompt, RUN_RAW_PROMPT_MAX_BYTES);
    run_entry_set(&entry, RUN_STRING_PROMPT, prompt, 100);
    set(&entry, RUN_STRING_MODEL, "m\xc3\xa4");
    set(&entry, RUN_STRING_ERROR_CODE, "cancelled");
    set(&entry, RUN_STRING_CONFIG,
        "{\"model\":\"m\",\"max_turns\":3,\"timeout\":5,\"allowed_tools\":[],\"files\":{\"a/b\":12}}");
    entry.record.started_us = STARTED;
    entry.record.ended_us = STARTED + 1;
    entry.record.duration_us = 1234567;
    entry.record.status = RUN_STATUS_CANCELLED;
    entry.record.is_local = true;
    run_entry_publish(&entry);
    line = strdup(written(&entry, NO_LIMIT));
    assert_true(run_record_summarise(line, strlen(line), &summary));
    assert_true(summary.id == ID && summary.is_ours && summary.by_cancel && !summary.is_running);
    assert_int_equal(summary.started_us, STARTED);
    tear_down(NULL);
    set_up(NULL);
    again = restore(line);
    assert_string_equal(written(&again, NO_LIMIT), line);
    free(line);
    free(prompt);
}

static void test_texts_beyond_their_limits_are_cut(void **state)
{
    char line[RUN_RAW_PROMPT_MAX_BYTES * 2];
    char long_text[RUN_RAW_PROMPT_MAX_BYTES + 2];
    struct run_entry entry;

    (void)state;
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    snprintf(line, sizeof line, BEGIN ",\"raw_prompt\":\"%s\",\"prompt\":\"%.200s\"}", long_text, long_text);
    entry = restore(line);
    assert_int_equal(strlen(written_member(&entry, NO_LIMIT, "raw_prompt")), RUN_RAW_PROMPT_MAX_BYTES + 2);
    assert_string_equal(written_member(&entry, NO_LIMIT, "prompt_truncated"), "true");
    assert_int_equal(strlen(written_member(&entry, NO_LIMIT, "prompt")), 102);
}

static const char *const garbage[] = {
    "",
    " ",
    "{",
    "null",
    "[]",
    "\"" ID_TEXT "\"",
    "{\"id\":\"" ID_TEXT "\"",
    "{\"id\":\"" ID_TEXT "\"}{\"id\":\"" ID_TEXT "\"}",
    "{\"id\":\"0123abcd\"}",
    "{\"id\":\"0123ABCD0123ABCD\"}",
    "{\"id\":\"3f2504e0-4f89-11d3-9a0c-0305e82c3301\"}",
    "{\"id\":\"0000000000000000\"}",
    "{\"id\":17}",
    "{\"prompt\":\"x\"}",
    "{\"id\":\"" ID_TEXT "\",\"prompt\":\"\xff\"}",
    "{\"id\":\"" ID_TEXT "\",\"cost_usd\":NaN}",
};

static void test_what_is_no_record_is_refused(void **state)
{
    struct run_record_summary summary;

    (void)state;
    for (size_t i = 0; i < COUNT(garbage); i++)
        assert_false(run_record_summarise(garbage[i], strlen(garbage[i]), &summary));
}

static void test_times_before_1970_keep_their_microseconds(void **state)
{
    char text[TIMESTAMP_BYTES];
    int64_t us = 0;

    (void)state;
    assert_string_equal(timestamp_format(-1, text), "1969-12-31T23:59:59.999999+00:00");
    assert_true(timestamp_parse(text, strlen(text), &us));
    assert_int_equal(us, -1);
    assert_false(timestamp_parse("2026-01-31T10:00:00+01", 22, &us));
    assert_false(timestamp_parse("2026-01-31T10:00:00 or so", 25, &us));
}

#define FRESH(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FRESH(test_all_keys_stand_in_their_order),
        FRESH(test_an_ended_run_has_all_it_may_have),
        FRESH(test_floats_are_spelled_as_python_spells_them),
        FRESH(test_any_bytes_become_a_json_string),
        FRESH(test_a_long_prompt_is_cut_between_characters),
        FRESH(test_a_configuration_that_was_cut_is_null),
        FRESH(test_what_a_line_says_is_the_record),
        FRESH(test_a_row_of_the_reference_is_taken_without_its_file_contents),
        FRESH(test_a_record_comes_back_as_it_was_written),
        FRESH(test_texts_beyond_their_limits_are_cut),
        FRESH(test_what_is_no_record_is_refused),
        cmocka_unit_test(test_times_before_1970_keep_their_microseconds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
