#include "cli/render.h"

#include "cli/format.h"
#include "cli/output_dir.h"
#include "common/base64.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOOL_LINE_MARGIN 2 /* columns: the mark before a tool */

bool render_open(struct render *render, const char *command, const struct render_options *options)
{
    *render = (struct render){.options = *options, .command = command, .output_fd = -1};
    terminal_open(&render->out, stdout);
    terminal_open(&render->err, stderr);
    if (options->output_dir == NULL)
        return true;
    render->output_fd = output_dir_open(options->output_dir);
    if (render->output_fd < 0)
        fprintf(stderr, "%s: %s: %s\n", command, options->output_dir, strerror(errno));
    return render->output_fd >= 0;
}

void render_close(struct render *render)
{
    if (render->output_fd >= 0)
        close(render->output_fd);
}

/* --- lines about the run ---------------------------------------------------------------------------------- */

/* Text that was said before stands above what is said now, on one screen. */
static void begin_note(struct render *render, enum style style)
{
    fflush(stdout);
    terminal_style(&render->err, style);
}

static void end_note(const struct render *render, enum style style)
{
    if (style != STYLE_NONE)
        terminal_style(&render->err, STYLE_NONE);
    fputc('\n', stderr);
}

/* One line, cut to the width of the terminal. */
static void note(struct render *render, enum style style, const char *mark, const char *label, const char *text)
{
    size_t columns = terminal_columns(&render->err);
    size_t used = TOOL_LINE_MARGIN;

    begin_note(render, style);
    fprintf(stderr, "%s ", mark);
    used += terminal_cell(&render->err, label, columns > used ? columns - used : 0);
    if (text != NULL && *text != '\0' && used + 2 < columns) {
        fputs("  ", stderr);
        (void)terminal_cell(&render->err, text, columns == SIZE_MAX ? SIZE_MAX : columns - used - 2);
    }
    end_note(render, style);
}

/* A sentence of the server's, whole. */
static void tell(struct render *render, enum style style, const char *label, const char *text)
{
    begin_note(render, style);
    fprintf(stderr, "%s: %s", render->command, label);
    terminal_line(&render->err, text);
    end_note(render, style);
}

/* --- what an agent says ----------------------------------------------------------------------------------- */

static void say(struct render *render, const char *text, size_t length)
{
    if (length == 0)
        return;
    terminal_text(&render->out, text, length);
    if (text[length - 1] != '\n')
        fputc('\n', stdout);
    fflush(stdout);
    render->said_text = true;
}

/* Of a tool's input the one value that says most; else all of it, to be freed. */
static const char *tool_subject(const json_t *input, char **all)
{
    static const char *const keys[] = {"command", "file_path", "notebook_path", "path",   "pattern",
                                       "url",     "query",     "description",   "prompt", "skill"};

    *all = NULL;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *value = field_string(input, keys[i]);

        if (value != NULL)
            return value;
    }
    if (json_object_size(input) > 0)
        *all = json_dumps(input, JSON_COMPACT);
    return *all;
}

static void show_tool(struct render *render, const json_t *block)
{
    const char *name = field_string(block, "name");
    char *all;
    const char *subject = tool_subject(json_object_get(block, "input"), &all);

    note(render, STYLE_DIM, "→", name != NULL ? name : "tool", subject);
    free(all);
}

/* Of a tool's answer only that it failed, and the beginning of why. */
static void show_tool_result(struct render *render, const json_t *block)
{
    const json_t *content = json_object_get(block, "content");
    const char *text =
        json_is_array(content) ? field_string(json_array_get(content, 0), "text") : json_string_value(content);

    if (json_is_true(json_object_get(block, "is_error")))
        note(render, STYLE_YELLOW, "✗", "tool failed", text);
}

/* A message of the agent, or of a tool to it. A subagent's text is not the answer; its tools are shown. */
static void show_message(struct render *render, const json_t *event)
{
    const json_t *content = json_object_get(json_object_get(event, "message"), "content");
    bool is_subagent = json_is_string(json_object_get(event, "parent_tool_use_id"));
    bool is_agents = strcmp(field_string(event, "type"), "assistant") == 0;
    const json_t *block;
    size_t i;

    json_array_foreach(content, i, block)
    {
        const char *type = field_string(block, "type");
        const json_t *text = json_object_get(block, "text");

        if (type == NULL)
            continue;
        if (is_agents && !is_subagent && strcmp(type, "text") == 0 && json_is_string(text))
            say(render, json_string_value(text), json_string_length(text));
        else if (is_agents && !render->options.quiet && strcmp(type, "tool_use") == 0)
            show_tool(render, block);
        else if (!is_agents && !render->options.quiet && strcmp(type, "tool_result") == 0)
            show_tool_result(render, block);
    }
}

/* --- how a run begins and ends ------------------------------------------------------------------------------ */

static void show_system(struct render *render, const json_t *event)
{
    const char *subtype = field_string(event, "subtype"), *model = field_string(event, "model");

    if (!render->options.quiet && subtype != NULL && strcmp(subtype, "init") == 0 && model != NULL)
        note(render, STYLE_DIM, "·", model, NULL);
}

/* An answer that was asked for as JSON, or the text of an agent that had said nothing yet. */
static void show_answer(struct render *render, const json_t *event)
{
    const json_t *structured = json_object_get(event, "structured_output");
    const json_t *text = json_object_get(event, "result");
    char *json = structured != NULL && !json_is_null(structured)
                     ? json_dumps(structured, JSON_INDENT(2) | JSON_ENCODE_ANY)
                     : NULL;

    if (json != NULL)
        say(render, json, strlen(json));
    else if (!render->said_text && json_is_string(text))
        say(render, json_string_value(text), json_string_length(text));
    free(json);
}

static void show_result(struct render *render, const json_t *event)
{
    const char *subtype = field_string(event, "subtype");
    const json_t *cost = json_object_get(event, "total_cost_usd");
    bool is_success = subtype != NULL && strcmp(subtype, "success") == 0;

    render->has_ended = true;
    render->has_summary = true;
    render->has_failed =
        subtype == NULL || strcmp(subtype, "success") != 0 || json_is_true(json_object_get(event, "is_error"));
    render->turns = field_number(event, "num_turns");
    render->cost = json_is_number(cost) ? json_number_value(cost) : field_number(event, "cost_usd");
    if (render->options.json)
        return;
    show_answer(render, event);
    if (render->has_failed)
        tell(render, STYLE_RED, "the agent ended with ", subtype != NULL && !is_success ? subtype : "an error");
}

static void show_error(struct render *render, const json_t *event)
{
    const char *text = field_string(event, "error");

    render->has_ended = true;
    render->has_failed = true;
    if (!render->options.json)
        tell(render, STYLE_RED, "", text != NULL ? text : "the run ended with an error");
}

static void show_warning(struct render *render, const json_t *event)
{
    const char *text = field_string(event, "message");

    if (!render->options.quiet && !render->options.json && text != NULL)
        tell(render, STYLE_YELLOW, "warning: ", text);
}

static void show_stderr(struct render *render, const json_t *event)
{
    const char *text = field_string(event, "data");

    if (render->options.quiet || render->options.json || text == NULL)
        return;
    begin_note(render, STYLE_DIM);
    terminal_text(&render->err, text, strlen(text));
    end_note(render, STYLE_DIM);
}

/* --- files -------------------------------------------------------------------------------------------------- */

static bool write_file(struct render *render, const json_t *event, const char *path,
                       char reason[static OUTPUT_REASON_BYTES])
{
    const json_t *text = json_object_get(event, "data");
    size_t length = json_string_length(text), decoded = 0;
    char *bytes = malloc(length / 4 * 3 + 3);
    bool written = false;

    if (bytes == NULL)
        snprintf(reason, OUTPUT_REASON_BYTES, "out of memory");
    else if (text == NULL || !base64_decode_lenient(json_string_value(text), length, bytes, &decoded))
        snprintf(reason, OUTPUT_REASON_BYTES, "its content is no base64");
    else
        written = output_dir_write(render->output_fd, path, bytes, decoded, reason);
    free(bytes);
    return written;
}

static void show_file(struct render *render, const json_t *event)
{
    const char *path = field_string(event, "relative_path");
    char reason[OUTPUT_REASON_BYTES], size[FORMAT_BYTES];

    if (path == NULL)
        path = "";
    if (render->output_fd >= 0 && !write_file(render, event, path, reason)) {
        render->file_failed = true;
        begin_note(render, STYLE_RED);
        fprintf(stderr, "%s: file not written: ", render->command);
        terminal_line(&render->err, path);
        fprintf(stderr, ": %s", reason);
        end_note(render, STYLE_RED);
    } else if (!render->options.quiet && !render->options.json) {
        format_size(field_number(event, "size"), size);
        note(render, STYLE_DIM, render->output_fd >= 0 ? "↓" : "·", path, size);
    }
}

/* --- events --------------------------------------------------------------------------------------------------- */

static const struct {
    const char *type;
    void (*show)(struct render *render, const json_t *event);
    bool also_json; /* it counts for more than what is printed */
} kinds[] = {
    {"assistant", show_message, false}, {"user", show_message, false}, {"system", show_system, false},
    {"result", show_result, true},      {"error", show_error, true},   {"warning", show_warning, false},
    {"stderr", show_stderr, false},     {"file", show_file, true},
};

static void show_event(struct render *render, const json_t *event)
{
    const char *type = field_string(event, "type");

    for (size_t i = 0; type != NULL && i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].type, type) == 0 && (kinds[i].also_json || !render->options.json))
            kinds[i].show(render, event);
    }
}

bool render_event(struct render *render, const char *payload, size_t length)
{
    json_t *event = json_loadb(payload, length, JSON_ALLOW_NUL, NULL);

    if (render->options.json) {
        terminal_text(&render->out, payload, length);
        fputc('\n', stdout);
        fflush(stdout);
    }
    if (json_is_object(event))
        show_event(render, event);
    else if (!render->options.json && !render->options.quiet)
        note(render, STYLE_DIM, "·", payload, NULL); /* a line that is no message */
    json_decref(event);
    return !ferror(stdout);
}

void render_summary(const struct render *render, double seconds, const char *run_id)
{
    char duration[FORMAT_BYTES];

    if (render->options.quiet || render->options.json || !render->has_summary)
        return;
    terminal_style(&render->err, render->has_failed ? STYLE_RED : STYLE_GREEN);
    fputs(render->has_failed ? "✗" : "✓", stderr);
    terminal_style(&render->err, STYLE_NONE);
    terminal_style(&render->err, STYLE_DIM);
    fprintf(stderr, " %.0f %s · $%.4f · %s · run ", render->turns, render->turns == 1 ? "turn" : "turns", render->cost,
            duration_text(seconds, duration));
    terminal_line(&render->err, run_id);
    terminal_style(&render->err, STYLE_NONE);
    fputc('\n', stderr);
}
