/*
 * ds show ID: all that the server knows of one run.
 */
#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] = "usage: ds show ID [--json]\n"
                            "Shows one run.\n"
                            "\n"
                            "  --json              print the server's record\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {{"json", no_argument, NULL, OPTION_ASK_JSON}, OPTIONS_SERVER, {0}};

static const struct {
    const char *label;
    const char *key;
    const char *(*format)(const json_t *value, char out[static FORMAT_BYTES]);
} rows[] = {
    {"run", "id", format_string},
    {"status", "status", format_string},
    {"error", "error", format_string},
    {"error code", "error_code", format_string},
    {"result", "result_subtype", format_string},
    {"model", "model", format_string},
    {"turns", "num_turns", format_count},
    {"cost", "cost_usd", format_cost},
    {"duration", "duration_secs", format_seconds},
    {"started", "started_at", format_instant},
    {"ended", "ended_at", format_instant},
    {"runtime", "runtime", format_string},
    {"sandbox", "sandbox_id", format_string},
    {"session", "agent_session_id", format_string},
    {"trigger", "trigger", format_string},
    {"team", "team_id", format_string},
    {"user", "user_id", format_string},
    {"channel", "channel_id", format_string},
    {"exit code", "exit_code", format_count},
};

/* What was asked for besides the prompt; files by name and size. */
static void print_config(const struct terminal *out, const json_t *record)
{
    json_t *config = json_object_get(record, "config_snapshot");
    const char *key;
    json_t *value;

    json_object_foreach(config, key, value)
    {
        char *text = json_is_null(value) || (json_is_object(value) && json_object_size(value) == 0)
                         ? NULL
                         : json_dumps(value, JSON_ENCODE_ANY);

        if (text != NULL) {
            fputs("asked for   ", stdout);
            terminal_line(out, key);
            fputc(' ', stdout);
            terminal_line(out, text);
            fputc('\n', stdout);
        }
        free(text);
    }
}

static void print_prompt(const struct terminal *out, const json_t *record)
{
    const json_t *prompt = json_object_get(record, "raw_prompt");

    if (json_string_length(prompt) == 0)
        return;
    fputc('\n', stdout);
    terminal_text(out, json_string_value(prompt), json_string_length(prompt));
    fputc('\n', stdout);
    if (json_is_true(json_object_get(record, "prompt_truncated")))
        fputs("(the prompt was longer)\n", stdout);
}

static void print_record(const json_t *record)
{
    struct terminal out;
    char text[FORMAT_BYTES];

    terminal_open(&out, stdout);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *value = json_object_get(record, rows[i].key);

        if (value == NULL || json_is_null(value))
            continue;
        printf("%-11s ", rows[i].label);
        terminal_line(&out, rows[i].format(value, text));
        fputc('\n', stdout);
    }
    print_config(&out, record);
    print_prompt(&out, record);
}

static int show(const struct ask *ask, const char *id)
{
    char *path = http_run_path(id, "");
    int code = DS_FAILED;
    json_t *record = path != NULL ? http_json(&ask->endpoint, "GET", path, &code) : NULL;

    free(path);
    if (record == NULL)
        return code;
    if (ask->json)
        ask_print_json(ask, record);
    else
        print_record(record);
    json_decref(record);
    return terminal_close(ask->command, stdout) ? DS_OK : DS_FAILED;
}

int command_show(int argc, char *argv[])
{
    struct ask ask = {.usage = usage};
    int code;

    if (!ask_open(&ask, argc, argv, longs, NULL, NULL, &code))
        return code;
    if (argc - optind != 1 || *argv[optind] == '\0')
        code = options_reject(ask.command, "it takes the id of one run");
    else
        code = show(&ask, argv[optind]);
    ask_close(&ask);
    return code;
}
