#include "worker/run_record.h"

#include "common/log.h"
#include "common/utf8_cut.h"
#include "worker/json_line.h"
#include "worker/number_text.h"
#include "worker/run_error.h"
#include "worker/stderr_text.h"
#include "worker/timestamp.h"
#include "worker/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RESTARTED_TEXT "server restarted"
/* More than what stands between the texts of a record. */
#define FRAME_BYTES      1024
#define DURATION_UNKNOWN (-1)

enum column_kind {
    COLUMN_NULL,
    COLUMN_ID,
    COLUMN_STRING,
    COLUMN_RAW_PROMPT,
    COLUMN_STATUS,
    COLUMN_STARTED,
    COLUMN_COST,
    COLUMN_TURNS,
    COLUMN_DURATION,
    COLUMN_FILES,
    COLUMN_CONFIG,
    COLUMN_EXIT_CODE,
    COLUMN_TRUNCATED,
    COLUMN_RUNTIME,
    COLUMN_ENDED,
};

/* The keys in their order. */
static const struct column {
    const char *key;
    enum column_kind kind;
    enum run_string string;
} columns[] = {
    {"id", COLUMN_ID, 0},
    {"prompt", COLUMN_STRING, RUN_STRING_PROMPT},
    {"model", COLUMN_STRING, RUN_STRING_MODEL},
    {"status", COLUMN_STATUS, 0},
    {"started_at", COLUMN_STARTED, 0},
    {"cost_usd", COLUMN_COST, 0},
    {"num_turns", COLUMN_TURNS, 0},
    {"duration_secs", COLUMN_DURATION, 0},
    {"error", COLUMN_STRING, RUN_STRING_ERROR},
    {"files_count", COLUMN_FILES, 0},
    {"feedback", COLUMN_NULL, 0},
    {"feedback_user", COLUMN_NULL, 0},
    {"raw_prompt", COLUMN_RAW_PROMPT, RUN_STRING_RAW_PROMPT},
    {"agent_session_id", COLUMN_STRING, RUN_STRING_AGENT_SESSION_ID},
    {"sandbox_id", COLUMN_STRING, RUN_STRING_SANDBOX_ID},
    {"team_id", COLUMN_STRING, RUN_STRING_TEAM_ID},
    {"user_id", COLUMN_STRING, RUN_STRING_USER_ID},
    {"channel_id", COLUMN_STRING, RUN_STRING_CHANNEL_ID},
    {"thread_ts", COLUMN_NULL, 0},
    {"config_snapshot", COLUMN_CONFIG, RUN_STRING_CONFIG},
    {"error_code", COLUMN_STRING, RUN_STRING_ERROR_CODE},
    {"result_subtype", COLUMN_STRING, RUN_STRING_RESULT_SUBTYPE},
    {"exit_code", COLUMN_EXIT_CODE, 0},
    {"prompt_truncated", COLUMN_TRUNCATED, 0},
    {"trigger", COLUMN_STRING, RUN_STRING_TRIGGER},
    {"runtime", COLUMN_RUNTIME, 0},
    {"ended_at", COLUMN_ENDED, 0},
};

#define COLUMN_COUNT (sizeof columns / sizeof *columns)

/* --- writing ------------------------------------------------------------------------------------------- */

static bool add_text(struct evbuffer *out, const char *text)
{
    return evbuffer_add(out, text, strlen(text)) == 0;
}

static bool add_integer(struct evbuffer *out, int64_t number)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRId64, number);
    return add_text(out, text);
}

/* As Python prints a float: a whole number too has a point. JSON has no word for what is not finite. */
static bool add_float(struct evbuffer *out, double number)
{
    char text[NUMBER_TEXT_BYTES + 2];

    if (!isfinite(number))
        return add_text(out, "null");
    number_text(number, text);
    if (strpbrk(text, ".e") == NULL)
        strcat(text, ".0");
    return add_text(out, text);
}

static bool add_time(struct evbuffer *out, int64_t us)
{
    char text[TIMESTAMP_BYTES];

    if (us == 0)
        return add_text(out, "null");
    timestamp_format(us, text);
    return json_text_write_string(out, text, strlen(text));
}

/* NULL for null. */
static bool add_string(struct evbuffer *out, const char *text, size_t length)
{
    json_t *repaired;
    bool added;

    if (text == NULL)
        return add_text(out, "null");
    if (utf8_is_valid(text, length))
        return json_text_write_string(out, text, length);
    repaired = json_lossy_string(text, length);
    added = repaired != NULL && json_text_write_string(out, json_string_value(repaired), json_string_length(repaired));
    json_decref(repaired);
    return added;
}

/* The stored text, on one line; null when it is no JSON: it had to be cut. */
static bool add_config(struct evbuffer *out, const char *text, size_t length)
{
    struct json_text config;

    if (text == NULL || !utf8_is_valid(text, length) || json_text_check_output(text, length, &config) != JSON_TEXT_OK)
        return add_text(out, "null");
    return json_text_rewrite(config, out, NULL, NULL);
}

static bool add_id(struct evbuffer *out, uint64_t id)
{
    char text[RUN_ID_DIGITS + 1];

    run_id_format(id, text);
    return json_text_write_string(out, text, RUN_ID_DIGITS);
}

static bool add_value(struct evbuffer *out, const struct column *column, const struct run_copy *copy,
                      size_t raw_prompt_max_bytes)
{
    const struct run_record *record = &copy->record;
    const char *status = run_status_name((enum run_status)record->status);
    size_t length = 0;
    const char *text = run_copy_string(copy, column->string, &length);

    switch (column->kind) {
    case COLUMN_NULL:
        return add_text(out, "null");
    case COLUMN_ID:
        return add_id(out, record->id);
    case COLUMN_STRING:
        return add_string(out, text, length);
    case COLUMN_RAW_PROMPT:
        return add_string(out, text, utf8_cut(text, length, raw_prompt_max_bytes));
    case COLUMN_STATUS:
        return json_text_write_string(out, status, strlen(status));
    case COLUMN_STARTED:
        return add_time(out, record->started_us);
    case COLUMN_COST:
        return record->has_cost ? add_float(out, record->cost_usd) : add_text(out, "null");
    case COLUMN_TURNS:
        return record->num_turns >= 0 ? add_integer(out, record->num_turns) : add_text(out, "null");
    case COLUMN_DURATION:
        return record->status != RUN_STATUS_RUNNING && record->duration_us >= 0
                   ? add_float(out, (double)record->duration_us / 1e6)
                   : add_text(out, "null");
    case COLUMN_FILES:
        return add_integer(out, record->files_count);
    case COLUMN_CONFIG:
        return add_config(out, text, length);
    case COLUMN_EXIT_CODE:
        return record->has_exit_code ? add_integer(out, record->exit_code) : add_text(out, "null");
    case COLUMN_TRUNCATED:
        (void)run_copy_string(copy, RUN_STRING_RAW_PROMPT, &length);
        return add_text(out, record->prompt_truncated || length > raw_prompt_max_bytes ? "true" : "false");
    case COLUMN_RUNTIME:
        return add_text(out, record->is_local ? "\"local\"" : "\"e2b\"");
    case COLUMN_ENDED:
        return add_time(out, record->ended_us);
    default:
        log_panic("run_record: kind %d", (int)column->kind);
    }
}

bool run_record_write(const struct run_copy *copy, size_t raw_prompt_max_bytes, struct evbuffer *out)
{
    const char *separator = "{\"";

    /* Pieces added one by one land in one chunk. */
    if (evbuffer_expand(out, copy->record.text_bytes + FRAME_BYTES) < 0)
        return false;
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (!add_text(out, separator) || !add_text(out, columns[i].key) || !add_text(out, "\":") ||
            !add_value(out, &columns[i], copy, raw_prompt_max_bytes))
            return false;
        separator = ",\"";
    }
    return add_text(out, "}");
}

/* --- reading: the line ---------------------------------------------------------------------------------- */

/* What stands under each key; start NULL: the key is missing. */
struct fields {
    struct json_text values[COLUMN_COUNT];
};

static bool read_fields(const char *line, size_t length, struct fields *fields)
{
    const char *names[COLUMN_COUNT];

    for (size_t i = 0; i < COLUMN_COUNT; i++)
        names[i] = columns[i].key;
    return json_line_members(line, length, names, COLUMN_COUNT, fields->values);
}

static const struct json_text *field_of(const struct fields *fields, const char *key)
{
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (strcmp(columns[i].key, key) == 0)
            return &fields->values[i];
    }
    log_panic("run_record: no key %s", key);
}

static bool is_type(struct json_text value, enum json_text_type type)
{
    return value.start != NULL && json_text_type(value) == type;
}

/* A time that cannot be read is 0: not known. */
static int64_t read_time(struct json_text value)
{
    int64_t us;

    if (!is_type(value, JSON_TEXT_STRING) || !timestamp_parse(value.start + 1, value.length - 2, &us))
        return 0;
    return us;
}

/* False when it is no number in this range. A number in an object is followed by something else. */
static bool read_number(struct json_text value, double min, double max, double *number)
{
    if (!is_type(value, JSON_TEXT_NUMBER))
        return false;
    *number = strtod(value.start, NULL);
    return *number >= min && *number <= max;
}

static enum run_status read_status(struct json_text value)
{
    for (unsigned i = 0; value.start != NULL && i < RUN_STATUS_COUNT; i++) {
        if (json_line_is(value, run_status_name((enum run_status)i)))
            return (enum run_status)i;
    }
    return RUN_STATUS_ERROR;
}

bool run_record_summarise(const char *line, size_t length, struct run_record_summary *summary)
{
    struct fields fields;
    struct json_text id, code;

    if (!read_fields(line, length, &fields))
        return false;
    id = *field_of(&fields, "id");
    code = *field_of(&fields, "error_code");
    if (!is_type(id, JSON_TEXT_STRING) || !run_id_parse(id.start + 1, id.length - 2, &summary->id))
        return false;
    summary->started_us = read_time(*field_of(&fields, "started_at"));
    summary->is_running = read_status(*field_of(&fields, "status")) == RUN_STATUS_RUNNING;
    summary->by_cancel = code.start != NULL && json_line_is(code, "cancelled");
    summary->is_ours = true;
    for (size_t i = 0; i < COLUMN_COUNT; i++)
        summary->is_ours = summary->is_ours && fields.values[i].start != NULL;
    return true;
}

/* --- reading: config_snapshot --------------------------------------------------------------------------- */

static struct json_text member(struct json_text object, const char *name)
{
    struct json_text key, value, found = {.start = NULL};
    struct json_text_cursor cursor;

    if (!is_type(object, JSON_TEXT_OBJECT))
        return found;
    cursor = json_text_enter(object);
    while (json_text_next_member(&cursor, &key, &value)) {
        if (json_line_is(key, name))
            found = value;
    }
    return found;
}

/* What a file is: the size that stands there, or that of the content, which is dropped; null when neither is known. */
static bool add_size(struct evbuffer *out, struct json_text file)
{
    json_t *content;
    bool added;

    if (is_type(file, JSON_TEXT_NUMBER))
        return evbuffer_add(out, file.start, file.length) == 0;
    if (!is_type(file, JSON_TEXT_STRING))
        return add_text(out, "null");
    content = json_text_string(file);
    added = content != NULL && add_integer(out, (int64_t)json_string_length(content));
    json_decref(content);
    return added;
}

static bool add_file(struct evbuffer *out, const char *separator, struct json_text path, struct json_text file)
{
    return add_text(out, separator) && json_text_rewrite(path, out, NULL, NULL) && add_text(out, ":") &&
           add_size(out, file);
}

/* A list of paths, or of objects with path and content. */
static bool add_listed_files(struct evbuffer *out, struct json_text list)
{
    struct json_text_cursor cursor = json_text_enter(list);
    struct json_text file, path;
    const char *separator = "";

    while (json_text_next_element(&cursor, &file)) {
        path = is_type(file, JSON_TEXT_STRING) ? file : member(file, "path");
        if (!is_type(path, JSON_TEXT_STRING))
            continue;
        if (!add_file(out, separator, path, member(file, "content")))
            return false;
        separator = ",";
    }
    return true;
}

static bool add_files(struct evbuffer *out, struct json_text files)
{
    struct json_text path, file;
    struct json_text_cursor cursor;
    const char *separator = "";

    if (is_type(files, JSON_TEXT_ARRAY))
        return add_text(out, "{") && add_listed_files(out, files) && add_text(out, "}");
    if (!is_type(files, JSON_TEXT_OBJECT))
        return add_text(out, "null");
    cursor = json_text_enter(files);
    if (!add_text(out, "{"))
        return false;
    while (json_text_next_member(&cursor, &path, &file)) {
        if (!add_file(out, separator, path, file))
            return false;
        separator = ",";
    }
    return add_text(out, "}");
}

/* Only what we know is kept: another program's snapshot may hold anything. */
static bool add_snapshot(struct evbuffer *out, struct json_text config)
{
    static const struct {
        const char *key;
        enum json_text_type type;
    } known[] = {
        {"model", JSON_TEXT_STRING},
        {"max_turns", JSON_TEXT_NUMBER},
        {"timeout", JSON_TEXT_NUMBER},
        {"allowed_tools", JSON_TEXT_ARRAY},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct json_text value = member(config, known[i].key);

        evbuffer_add_printf(out, "%s\"%s\":", i > 0 ? "," : "{", known[i].key);
        if (is_type(value, known[i].type) ? !json_text_rewrite(value, out, NULL, NULL) : !add_text(out, "null"))
            return false;
    }
    return add_text(out, ",\"files\":") && add_files(out, member(config, "files")) && add_text(out, "}");
}

static bool read_config(struct json_text config, struct run_entry *entry)
{
    struct evbuffer *snapshot;
    size_t length;
    bool good;

    if (!is_type(config, JSON_TEXT_OBJECT))
        return true;
    snapshot = evbuffer_new();
    good = snapshot != NULL && add_snapshot(snapshot, config);
    length = good ? evbuffer_get_length(snapshot) : 0;
    if (good && length <= RUN_CONFIG_MAX_BYTES)
        run_entry_set(entry, RUN_STRING_CONFIG, (const char *)evbuffer_pullup(snapshot, -1), length);
    if (snapshot != NULL)
        evbuffer_free(snapshot);
    return good;
}

/* --- reading: the record --------------------------------------------------------------------------------- */

static bool read_string(struct json_text value, enum run_string which, struct run_entry *entry)
{
    json_t *string;
    const char *text;
    size_t length;

    if (!is_type(value, JSON_TEXT_STRING))
        return true;
    string = json_text_string(value);
    if (string == NULL)
        return false;
    text = json_string_value(string);
    length = json_string_length(string);
    if (which == RUN_STRING_PROMPT)
        length = utf8_prefix(text, length, RUN_PROMPT_MAX_CODE_POINTS);
    if (which == RUN_STRING_RAW_PROMPT && length > RUN_RAW_PROMPT_MAX_BYTES)
        entry->record.prompt_truncated = true;
    run_entry_set(entry, which, text, length);
    json_decref(string);
    return true;
}

static bool read_value(const struct column *column, struct json_text value, struct run_entry *entry)
{
    struct run_record *record = &entry->record;
    double number;

    switch (column->kind) {
    case COLUMN_NULL:
    case COLUMN_ID:
        return true;
    case COLUMN_STRING:
    case COLUMN_RAW_PROMPT:
        return read_string(value, column->string, entry);
    case COLUMN_STATUS:
        record->status = (uint8_t)read_status(value);
        return true;
    case COLUMN_STARTED:
        record->started_us = read_time(value);
        return true;
    case COLUMN_COST:
        record->has_cost = read_number(value, 0, HUGE_VAL, &number) && isfinite(number);
        record->cost_usd = record->has_cost ? number : 0;
        return true;
    case COLUMN_TURNS:
        record->num_turns = read_number(value, 0, INT32_MAX, &number) ? (int64_t)number : -1;
        return true;
    case COLUMN_DURATION:
        record->duration_us =
            read_number(value, 0, INT32_MAX, &number) ? (int64_t)(number * 1e6 + 0.5) : DURATION_UNKNOWN;
        return true;
    case COLUMN_FILES:
        record->files_count = read_number(value, 0, INT32_MAX, &number) ? (uint32_t)number : 0;
        return true;
    case COLUMN_CONFIG:
        return read_config(value, entry);
    case COLUMN_EXIT_CODE:
        record->has_exit_code = read_number(value, INT32_MIN, INT32_MAX, &number);
        record->exit_code = record->has_exit_code ? (int32_t)number : 0;
        return true;
    case COLUMN_TRUNCATED:
        record->prompt_truncated =
            record->prompt_truncated || (is_type(value, JSON_TEXT_BOOLEAN) && json_text_is_true(value));
        return true;
    case COLUMN_RUNTIME:
        record->is_local = value.start != NULL && json_line_is(value, "local");
        return true;
    case COLUMN_ENDED:
        record->ended_us = read_time(value);
        return true;
    default:
        log_panic("run_record: kind %d", (int)column->kind);
    }
}

/* Nobody saw its end. */
static void end_interrupted(struct run_entry *entry)
{
    const char *code = run_error_code(RUN_ERROR_SERVER_SHUTDOWN);

    entry->record.status = RUN_STATUS_ERROR;
    run_entry_set(entry, RUN_STRING_ERROR_CODE, code, strlen(code));
    run_entry_set(entry, RUN_STRING_ERROR, RESTARTED_TEXT, strlen(RESTARTED_TEXT));
}

bool run_record_read(const char *line, size_t length, struct run_entry *entry)
{
    struct fields fields;

    if (!read_fields(line, length, &fields))
        log_panic("run_record: the line was not summarised");
    for (size_t i = 0; i < COLUMN_COUNT; i++) {
        if (!read_value(&columns[i], fields.values[i], entry))
            return false;
    }
    if (entry->record.status == RUN_STATUS_RUNNING)
        end_interrupted(entry);
    return true;
}
