/*
 * What an agent prints: however it is cut, the same lines come, and each is judged as a reader with a tree of it would
 * judge it. The same bytes as stderr make events that lose and change nothing but blanks and what is no UTF-8.
 */
#include "tests/fuzz/fuzz.h"
#include "worker/agent_report.h"
#include "worker/line_buffer.h"
#include "worker/stderr_text.h"
#include "worker/utf8.h"

#define LINE_LIMIT_BYTES 8192

/* All lines that came, each with an end. */
struct lines {
    char *bytes;
    size_t length;
    void (*look)(const char *line, size_t length);
};

static bool on_line(void *context, const char *line, size_t length)
{
    struct lines *lines = context;

    FUZZ_CHECK(length <= LINE_LIMIT_BYTES && (length == 0 || memchr(line, '\n', length) == NULL));
    if (length > 0)
        memcpy(lines->bytes + lines->length, line, length);
    lines->bytes[lines->length + length] = '\n';
    lines->length += length + 1;
    if (lines->look != NULL)
        lines->look(line, length);
    return true;
}

static enum line_result read_lines(const uint8_t *data, size_t size, struct fuzz_pieces *pieces, struct lines *lines)
{
    enum line_result result = LINE_OK;
    struct line_buffer buffer;

    lines->bytes = malloc(size + 1);
    line_buffer_init(&buffer, LINE_LIMIT_BYTES);
    for (size_t at = 0; at < size && result == LINE_OK;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        result = line_buffer_feed(&buffer, (const char *)data + at, piece, on_line, lines);
        at += piece;
    }
    if (result == LINE_OK)
        result = line_buffer_finish(&buffer, on_line, lines);
    line_buffer_release(&buffer);
    return result;
}

/* --- the report ------------------------------------------------------------------------------------------- */

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* jansson refuses what JSON.stringify() may write (lone surrogates, NUL in keys, large numbers): then it says nothing.
 */
static void check_report(const char *line, size_t length)
{
    struct agent_report report;
    enum agent_line kind, expected = AGENT_LINE_PLAIN;
    json_t *root = json_loadb(line, length, JSON_ALLOW_NUL, NULL);
    const json_t *type = json_object_get(root, "type"), *subtype = json_object_get(root, "subtype");

    agent_report_init(&report);
    kind = agent_report_read(&report, line, length);
    FUZZ_CHECK(utf8_is_valid(report.subtype, strlen(report.subtype)) &&
               utf8_is_valid(report.model, strlen(report.model)));
    FUZZ_CHECK(utf8_is_valid(report.session_id, strlen(report.session_id)));
    FUZZ_CHECK(report.error == NULL ||
               (strlen(report.error) <= AGENT_ERROR_MAX_BYTES && utf8_is_valid(report.error, strlen(report.error))));
    FUZZ_CHECK((kind == AGENT_LINE_TERMINAL) == (report.ending != AGENT_NOT_ENDED));
    if (is_text(type, "result") || is_text(type, "error"))
        expected = AGENT_LINE_TERMINAL;
    else if (is_text(type, "system") && is_text(subtype, "init"))
        expected = AGENT_LINE_INIT;
    if (json_is_object(root) &&
        json_string_length(type) == strlen(json_is_string(type) ? json_string_value(type) : "") &&
        json_string_length(subtype) == strlen(json_is_string(subtype) ? json_string_value(subtype) : ""))
        FUZZ_CHECK(kind == expected);
    if (json_is_object(root) && kind == AGENT_LINE_TERMINAL && is_text(type, "result"))
        FUZZ_CHECK((report.ending == AGENT_SUCCEEDED) ==
                   (strcmp(report.subtype, "success") == 0 && !json_is_true(json_object_get(root, "is_error"))));
    json_decref(root);
    agent_report_release(&report);
}

/* --- stderr ----------------------------------------------------------------------------------------------- */

static void check_event(json_t *event)
{
    const json_t *text = json_object_get(event, "data");

    if (event == NULL)
        return;
    FUZZ_CHECK(json_is_string(text) && json_string_length(text) > 0);
    FUZZ_CHECK(utf8_is_valid(json_string_value(text), json_string_length(text)));
    json_decref(event);
}

/* Bytes that are neither blank nor part of no UTF-8 are in one event each. */
static void check_stderr(const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    struct stderr_text text = {0};

    for (size_t at = 0; at < size;) {
        size_t piece = fuzz_next_piece(pieces, size - at);

        FUZZ_CHECK(stderr_text_append(&text, (const char *)data + at, piece));
        check_event(stderr_text_take_lines(&text));
        if (piece % 3 == 0)
            check_event(stderr_text_take_rest(&text));
        FUZZ_CHECK(text.length <= STDERR_REST_MAX_BYTES + 1024);
        at += piece;
    }
    check_event(stderr_text_take_all(&text));
    FUZZ_CHECK(text.length == 0);
    stderr_text_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct lines whole = {.look = check_report}, cut = {.look = NULL};
    enum line_result result = read_lines(data, size, NULL, &whole), result_cut = read_lines(data, size, &pieces, &cut);

    FUZZ_CHECK(result == result_cut && (result == LINE_OK || result == LINE_TOO_LONG));
    FUZZ_CHECK(whole.length == cut.length && memcmp(whole.bytes, cut.bytes, whole.length) == 0);
    if (result == LINE_OK && size > 0) {
        FUZZ_CHECK(whole.length == size + (data[size - 1] != '\n') && memcmp(whole.bytes, data, size) == 0);
    }
    check_stderr(data, size, &pieces);
    free(whole.bytes);
    free(cut.bytes);
    return 0;
}
