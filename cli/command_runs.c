/*
 * ds runs: the newest runs of a server.
 */
#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/runs_table.h"
#include "cli/watch.h"

#include <stdio.h>
#include <string.h>

#define LIMIT_MAX     1000
#define LIMIT_DEFAULT 20
#define PATH_BYTES    96

enum { OPTION_STATUS = OPTION_ASK_OWN, OPTION_LIMIT };

static const char usage[] = "usage: ds runs [OPTION]...\n"
                            "Lists runs, the newest first.\n"
                            "\n"
                            "  --status STATUS     only running, completed, error or cancelled ones\n"
                            "  --limit N           at most so many, up to 1000 (default 20)\n"
                            "  --json              print the server's records\n"
                            "  --watch             again every two seconds\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {{"status", required_argument, NULL, OPTION_STATUS},
                                      {"limit", required_argument, NULL, OPTION_LIMIT},
                                      {"json", no_argument, NULL, OPTION_ASK_JSON},
                                      {"watch", no_argument, NULL, OPTION_ASK_WATCH},
                                      OPTIONS_SERVER,
                                      {0}};

struct runs {
    struct ask ask;
    const char *status; /* or NULL: all */
    long limit;
};

static bool is_status(const char *text)
{
    static const char *const all[] = {"running", "completed", "error", "cancelled"};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i], text) == 0)
            return true;
    }
    return false;
}

static bool take(void *context, int code, char *value)
{
    struct runs *runs = context;

    if (code == OPTION_LIMIT)
        return options_number(runs->ask.command, "--limit", value, 1, LIMIT_MAX, &runs->limit);
    runs->status = value;
    if (!is_status(value))
        (void)options_reject(runs->ask.command, "--status wants running, completed, error or cancelled: %s", value);
    return is_status(value);
}

static int show(void *context)
{
    const struct runs *runs = context;
    char path[PATH_BYTES];
    json_t *list;
    int code;

    snprintf(path, sizeof path, "/runs?limit=%ld%s%s", runs->limit, runs->status != NULL ? "&status=" : "",
             runs->status != NULL ? runs->status : "");
    list = http_json(&runs->ask.endpoint, "GET", path, &code);
    if (list == NULL)
        return code;
    if (runs->ask.json)
        ask_print_json(&runs->ask, list);
    else
        runs_table_print(list);
    json_decref(list);
    return DS_OK;
}

int command_runs(int argc, char *argv[])
{
    struct runs runs = {.ask = {.usage = usage}, .limit = LIMIT_DEFAULT};
    int code;

    if (!ask_open(&runs.ask, argc, argv, longs, take, &runs, &code))
        return code;
    if (optind < argc)
        code = options_reject(runs.ask.command, "it takes no words: %s", argv[optind]);
    else
        code = watch(runs.ask.command, runs.ask.again, show, &runs);
    ask_close(&runs.ask);
    return code;
}
