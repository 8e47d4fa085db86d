/*
 * ds status: how a server is: its workers, its live runs, its limits.
 */
#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/format.h"
#include "cli/runs_table.h"
#include "cli/table.h"
#include "cli/watch.h"

#include <stdio.h>

#define MS_PER_SECOND 1000

static const char usage[] = "usage: ds status [OPTION]...\n"
                            "Shows workers, live runs and limits of the server.\n"
                            "\n"
                            "  --json              print the server's report, with the live runs as \"live\"\n"
                            "  --watch             again every two seconds\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {
    {"json", no_argument, NULL, OPTION_ASK_JSON}, {"watch", no_argument, NULL, OPTION_ASK_WATCH}, OPTIONS_SERVER, {0}};

static const struct table_column worker_columns[] = {
    {"WORKER", false, 0},     {"GENERATION", true, 0}, {"STATE", false, 0},    {"RUNS", true, 0},
    {"CONNECTIONS", true, 0}, {"ENDED", true, 0},      {"HEARTBEAT", true, 0},
};

static bool add_worker(struct table *table, const json_t *worker)
{
    char pid[FORMAT_BYTES], generation[FORMAT_BYTES], live[FORMAT_BYTES], connections[FORMAT_BYTES],
        ended[FORMAT_BYTES], age[FORMAT_BYTES];
    const char *const cells[] = {
        format_count(json_object_get(worker, "pid"), pid),
        format_count(json_object_get(worker, "generation"), generation),
        format_text(json_object_get(worker, "state")),
        format_count(json_object_get(worker, "live_runs"), live),
        format_count(json_object_get(worker, "connections"), connections),
        format_count(json_object_get(worker, "ended_runs"), ended),
        duration_text(field_number(worker, "heartbeat_age_ms") / MS_PER_SECOND, age),
    };

    return table_add(table, cells);
}

static void print_workers(const struct terminal *out, const json_t *workers)
{
    struct table *table = table_new(worker_columns, sizeof worker_columns / sizeof *worker_columns);
    bool good = table != NULL;
    const json_t *worker;
    size_t i;

    json_array_foreach(workers, i, worker)
    {
        good = good && add_worker(table, worker);
    }
    if (good)
        table_print(table, out);
    table_free(table);
}

static void print_totals(const struct terminal *out, const struct endpoint *endpoint, const json_t *report)
{
    const json_t *runs = json_object_get(report, "runs");
    char uptime[FORMAT_BYTES], started[FORMAT_BYTES];

    fputs("server    ", stdout);
    terminal_line(out, endpoint->name);
    fputs(", sandstorm ", stdout);
    terminal_line(out, format_text(json_object_get(report, "version")));
    fputs(", instance ", stdout);
    terminal_line(out, format_text(json_object_get(report, "instance")));
    fputs("\nstarted   ", stdout);
    terminal_line(out, format_instant(json_object_get(report, "started_at"), started));
    printf(" UTC, %s ago\n", duration_text(field_number(report, "uptime_secs"), uptime));
    printf("runs      %.0f live of %.0f; since the start %.0f completed, %.0f error, %.0f cancelled, $%.4f\n",
           field_number(runs, "live"), field_number(runs, "max"), field_number(runs, "completed"),
           field_number(runs, "error"), field_number(runs, "cancelled"), field_number(report, "cost_usd"));
    printf("sandboxes %.0f not deleted at the first try, and tried again\n\n", field_number(report, "kill_queue"));
}

static void print_report(const struct ask *ask, const json_t *report, const json_t *live)
{
    struct terminal out;

    terminal_open(&out, stdout);
    print_totals(&out, &ask->endpoint, report);
    print_workers(&out, json_object_get(report, "workers"));
    if (json_array_size(live) > 0) {
        fputc('\n', stdout);
        runs_table_print(live);
    }
}

static int show(void *context)
{
    const struct ask *ask = context;
    int code = DS_FAILED;
    json_t *report = http_json(&ask->endpoint, "GET", "/status", &code);
    json_t *live = report != NULL ? http_json(&ask->endpoint, "GET", "/runs?status=running&limit=1000", &code) : NULL;

    if (live != NULL) {
        code = DS_OK;
        if (!ask->json)
            print_report(ask, report, live);
        else if (json_object_set(report, "live", live) == 0)
            ask_print_json(ask, report);
    }
    json_decref(live);
    json_decref(report);
    return code;
}

int command_status(int argc, char *argv[])
{
    struct ask ask = {.usage = usage};
    int code;

    if (!ask_open(&ask, argc, argv, longs, NULL, NULL, &code))
        return code;
    if (optind < argc)
        code = options_reject(ask.command, "it takes no words: %s", argv[optind]);
    else
        code = watch(ask.command, ask.again, show, &ask);
    ask_close(&ask);
    return code;
}
