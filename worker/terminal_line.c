#include "worker/terminal_line.h"

#include <jansson.h>
#include <string.h>

void agent_report_init(struct agent_report *report)
{
    *report = (struct agent_report){.num_turns = -1};
}

static bool contains(const char *line, size_t length, const char *text)
{
    return memmem(line, length, text, strlen(text)) != NULL;
}

/*
 * A full parse of each line would cost more than its relay: only a line that may hold a terminal type is parsed. An
 * escape may spell the word in another way.
 */
static bool worth_parsing(const char *line, size_t length)
{
    return contains(line, length, "\"result\"") || contains(line, length, "\"error\"") ||
           contains(line, length, "\\u00");
}

static void read_result(struct agent_report *report, json_t *line)
{
    json_t *cost = json_object_get(line, "total_cost_usd");
    const char *subtype = json_string_value(json_object_get(line, "subtype"));
    bool success = subtype != NULL && strcmp(subtype, "success") == 0;

    if (!json_is_number(cost))
        cost = json_object_get(line, "cost_usd");
    if (json_is_number(cost)) {
        report->has_cost = true;
        report->cost_usd = json_number_value(cost);
    }
    if (json_is_integer(json_object_get(line, "num_turns")))
        report->num_turns = json_integer_value(json_object_get(line, "num_turns"));
    report->ending = success && !json_is_true(json_object_get(line, "is_error")) ? AGENT_SUCCEEDED : AGENT_FAILED;
}

bool agent_report_read(struct agent_report *report, const char *line, size_t length)
{
    json_t *root;
    const char *type;
    bool terminal = false;

    if (!worth_parsing(line, length))
        return false;
    root = json_loadb(line, length, JSON_ALLOW_NUL, NULL);
    type = json_string_value(json_object_get(root, "type"));
    if (type != NULL && strcmp(type, "result") == 0) {
        read_result(report, root);
        terminal = true;
    } else if (type != NULL && strcmp(type, "error") == 0) {
        report->ending = AGENT_ERROR;
        terminal = true;
    }
    json_decref(root);
    return terminal;
}
