/*
 * ds replay ID: the prompt and configuration of a run again, and what became of both beside each other.
 */
#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/request.h"
#include "cli/stream.h"
#include "cli/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIFFERENCE_BYTES 48

static const char usage[] = "usage: ds replay ID [OPTION]...\n"
                            "Runs the prompt of a run again, with the model, turns, time and tools that were asked\n"
                            "for then, and compares the two.\n"
                            "\n"
                            "  -m, --model MODEL   another model\n"
                            "  -f, --file PATH     a file the first run was given: contents are not kept; may be\n"
                            "                      repeated\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {
    {"model", required_argument, NULL, 'm'}, {"file", required_argument, NULL, 'f'}, OPTIONS_SERVER, {0}};

struct replay {
    struct ask ask;
    struct request request; /* its files */
    const char *model;
};

static bool take(void *context, int code, char *value)
{
    struct replay *replay = context;

    if (code == 'f')
        return request_add_file(&replay->request, replay->ask.command, value);
    replay->model = value;
    return true;
}

/* --- the request again ---------------------------------------------------------------------------------------- */

/* Every file that the first run was given must be given again. */
static bool has_files(const struct replay *replay, const json_t *config)
{
    json_t *files = json_object_get(config, "files");
    const char *name;
    json_t *size;
    bool has_all = true;

    json_object_foreach(files, name, size)
    {
        if (json_object_get(replay->request.files, name) == NULL) {
            fprintf(stderr, "%s: the run was given %s, whose content the server does not keep: say -f %s\n",
                    replay->ask.command, name, name);
            has_all = false;
        }
    }
    return has_all;
}

/* The body of the same request; NULL after a message. */
static json_t *body_of(const struct replay *replay, const json_t *record)
{
    static const char *const kept[] = {"model", "max_turns", "timeout", "allowed_tools"};
    const json_t *config = json_object_get(record, "config_snapshot");
    json_t *prompt = json_object_get(record, "raw_prompt");
    json_t *body;

    if (json_string_length(prompt) == 0 || json_is_true(json_object_get(record, "prompt_truncated"))) {
        fprintf(stderr, "%s: the server has not kept the whole prompt of this run\n", replay->ask.command);
        return NULL;
    }
    if (!has_files(replay, config))
        return NULL;
    body = json_pack("{s:O}", "prompt", prompt);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        json_t *value = json_object_get(config, kept[i]);

        if (value != NULL && !json_is_null(value))
            json_object_set(body, kept[i], value);
    }
    if (replay->model != NULL)
        json_object_set_new(body, "model", json_string(replay->model));
    if (replay->request.files != NULL)
        json_object_set(body, "files", replay->request.files);
    return body;
}

/* --- what became of both ---------------------------------------------------------------------------------------- */

static const struct table_column columns[] = {{"", false, 0}, {"FIRST", false, 0}, {"AGAIN", false, 0}, {"", false, 0}};

/* "+12 %" of two numbers; "" when that says nothing. */
static const char *difference(const json_t *first, const json_t *second, char out[static DIFFERENCE_BYTES])
{
    double before = json_number_value(first), after = json_number_value(second);

    *out = '\0';
    if (json_is_number(first) && json_is_number(second) && before > 0)
        snprintf(out, DIFFERENCE_BYTES, "%+.0f %%", (after - before) / before * 100);
    return out;
}

static const struct {
    const char *label;
    const char *key;
    const char *(*format)(const json_t *value, char out[static FORMAT_BYTES]);
} rows[] = {
    {"run", "id", format_string},
    {"status", "status", format_string},
    {"error", "error", format_string},
    {"model", "model", format_string},
    {"turns", "num_turns", format_count},
    {"cost", "cost_usd", format_cost},
    {"time", "duration_secs", format_seconds},
};

static void compare(const json_t *first, const json_t *second)
{
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct terminal out;
    bool good = table != NULL;

    terminal_open(&out, stdout);
    for (size_t i = 0; good && i < sizeof rows / sizeof *rows; i++) {
        const json_t *before = json_object_get(first, rows[i].key), *after = json_object_get(second, rows[i].key);
        char texts[2][FORMAT_BYTES], change[DIFFERENCE_BYTES];
        const char *const cells[] = {rows[i].label, rows[i].format(before, texts[0]), rows[i].format(after, texts[1]),
                                     difference(before, after, change)};

        if (!json_is_null(before) || !json_is_null(after))
            good = table_add(table, cells);
    }
    fputc('\n', stdout);
    if (good)
        table_print(table, &out);
    table_free(table);
}

static json_t *record_of(const struct ask *ask, const char *id, int *code)
{
    char *path = http_run_path(id, "");
    json_t *record = path != NULL ? http_json(&ask->endpoint, "GET", path, code) : NULL;

    free(path);
    return record;
}

/* The second run, and the comparison of what the server says of both. */
static int run_again(const struct replay *replay, const json_t *first, const json_t *body)
{
    const struct render_options options = {.json = false, .quiet = false};
    const struct ask *ask = &replay->ask;
    char id[HTTP_RUN_ID_BYTES] = "";
    int code = stream_run(&ask->endpoint, body, &options, id), second_code = DS_FAILED;
    json_t *second = *id != '\0' && code <= DS_FAILED ? record_of(ask, id, &second_code) : NULL;

    if (second == NULL)
        return code != DS_OK ? code : second_code;
    compare(first, second);
    json_decref(second);
    return terminal_close(ask->command, stdout) ? code : DS_FAILED;
}

static int replay_run(const struct replay *replay, const char *id)
{
    int code = DS_FAILED;
    json_t *first = record_of(&replay->ask, id, &code);
    json_t *body;

    if (first == NULL)
        return code;
    body = body_of(replay, first);
    code = body != NULL ? run_again(replay, first, body) : DS_FAILED;
    json_decref(body);
    json_decref(first);
    return code;
}

int command_replay(int argc, char *argv[])
{
    struct replay replay = {.ask = {.usage = usage, .shorts = "m:f:"}};
    int code;

    if (!ask_open(&replay.ask, argc, argv, longs, take, &replay, &code)) {
        request_release(&replay.request);
        return code;
    }
    if (argc - optind != 1 || *argv[optind] == '\0')
        code = options_reject(replay.ask.command, "it takes the id of one run");
    else
        code = replay_run(&replay, argv[optind]);
    request_release(&replay.request);
    ask_close(&replay.ask);
    return code;
}
