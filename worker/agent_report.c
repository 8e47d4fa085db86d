#include "worker/agent_report.h"

#include "common/utf8_cut.h"
#include "worker/coerce.h"
#include "worker/json_line.h"

#include <stdlib.h>
#include <string.h>

/* The top-level members that mean something. start NULL: not there. */
enum member {
    MEMBER_TYPE,
    MEMBER_SUBTYPE,
    MEMBER_IS_ERROR,
    MEMBER_TOTAL_COST_USD,
    MEMBER_COST_USD,
    MEMBER_NUM_TURNS,
    MEMBER_SESSION_ID,
    MEMBER_MODEL,
    MEMBER_ERROR,
    MEMBER_COUNT
};

static const char *const member_names[MEMBER_COUNT] = {
    [MEMBER_TYPE] = "type",
    [MEMBER_SUBTYPE] = "subtype",
    [MEMBER_IS_ERROR] = "is_error",
    [MEMBER_TOTAL_COST_USD] = "total_cost_usd",
    [MEMBER_COST_USD] = "cost_usd",
    [MEMBER_NUM_TURNS] = "num_turns",
    [MEMBER_SESSION_ID] = "session_id",
    [MEMBER_MODEL] = "model",
    [MEMBER_ERROR] = "error",
};

void agent_report_init(struct agent_report *report)
{
    *report = (struct agent_report){.num_turns = -1};
}

void agent_report_release(struct agent_report *report)
{
    free(report->error);
    report->error = NULL;
}

/* --- the line -------------------------------------------------------------------------------------------- */

static bool begins(const char *at, const char *end, const char *text)
{
    return (size_t)(end - at) >= strlen(text) && memcmp(at, text, strlen(text)) == 0;
}

/*
 * A scan of each line would cost more than its relay: only a line that may be of a wanted type is scanned, one in which
 * a string begins like one of the words. An escape may spell the word in another way.
 */
static bool worth_scanning(const char *line, size_t length)
{
    const char *at = line, *end = line + length;

    while ((at = memchr(at, '"', (size_t)(end - at))) != NULL) {
        at++;
        if (begins(at, end, "result\"") || begins(at, end, "error\"") || begins(at, end, "init\""))
            return true;
    }
    return memchr(line, '\\', length) != NULL && memmem(line, length, "\\u00", 4) != NULL;
}

/* --- its members ----------------------------------------------------------------------------------------- */

/* The first `max` bytes of a string, in whole characters; NULL: it is none. */
static json_t *string_of(struct json_text value, size_t max, size_t *length)
{
    json_t *string = value.start != NULL && json_text_type(value) == JSON_TEXT_STRING ? json_text_string(value) : NULL;
    const char *text = json_string_value(string);

    *length = text != NULL ? strnlen(text, json_string_length(string)) : 0;
    if (text != NULL)
        *length = utf8_cut(text, *length, max);
    return string;
}

static void take_name(struct json_text value, char out[static AGENT_NAME_MAX_BYTES + 1])
{
    size_t length;
    json_t *string = string_of(value, AGENT_NAME_MAX_BYTES, &length);

    if (string == NULL)
        return;
    memcpy(out, json_string_value(string), length);
    out[length] = '\0';
    json_decref(string);
}

static bool take_number(struct json_text value, double *number)
{
    return value.start != NULL && json_text_type(value) == JSON_TEXT_NUMBER && coerce_number(value, number) == COERCED;
}

static void read_result(struct agent_report *report, const struct json_text *members)
{
    struct json_text turns = members[MEMBER_NUM_TURNS], is_error = members[MEMBER_IS_ERROR];
    double cost;
    int64_t count;

    if (take_number(members[MEMBER_TOTAL_COST_USD], &cost) || take_number(members[MEMBER_COST_USD], &cost)) {
        report->has_cost = true;
        report->cost_usd = cost;
    }
    if (turns.start != NULL && json_text_type(turns) == JSON_TEXT_NUMBER && coerce_integer(turns, &count) == COERCED)
        report->num_turns = count;
    take_name(members[MEMBER_SESSION_ID], report->session_id);
    report->subtype[0] = '\0';
    take_name(members[MEMBER_SUBTYPE], report->subtype);
    agent_report_release(report);
    report->ending = AGENT_FAILED;
    if (strcmp(report->subtype, "success") == 0 && (is_error.start == NULL || !json_text_is_true(is_error)))
        report->ending = AGENT_SUCCEEDED;
}

static void read_error(struct agent_report *report, const struct json_text *members)
{
    size_t length;
    json_t *string = string_of(members[MEMBER_ERROR], AGENT_ERROR_MAX_BYTES, &length);

    agent_report_release(report);
    if (string != NULL)
        report->error = strndup(json_string_value(string), length);
    json_decref(string);
    report->ending = AGENT_ERROR;
}

enum agent_line agent_report_read(struct agent_report *report, const char *line, size_t length)
{
    struct json_text members[MEMBER_COUNT];

    if (!worth_scanning(line, length) || !json_line_members(line, length, member_names, MEMBER_COUNT, members))
        return AGENT_LINE_PLAIN;
    if (json_line_is(members[MEMBER_TYPE], "result")) {
        read_result(report, members);
        return AGENT_LINE_TERMINAL;
    }
    if (json_line_is(members[MEMBER_TYPE], "error")) {
        read_error(report, members);
        return AGENT_LINE_TERMINAL;
    }
    if (!json_line_is(members[MEMBER_TYPE], "system") || !json_line_is(members[MEMBER_SUBTYPE], "init"))
        return AGENT_LINE_PLAIN;
    take_name(members[MEMBER_MODEL], report->model);
    take_name(members[MEMBER_SESSION_ID], report->session_id);
    return AGENT_LINE_INIT;
}
