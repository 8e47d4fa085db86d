/*
 * What `sandstorm status` prints: the report of status_report.h and the live runs, as JSON or for a person. Texts of
 * clients are shown without control characters, and cut to the width of the terminal.
 */
#include "common/clock.h"
#include "common/duration_text.h"
#include "common/run_table.h"
#include "worker/number_text.h"
#include "worker/run_record.h"
#include "worker/status_report.h"
#include "worker/worker.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#define SHOWN_RUNS_MAX   1000
#define MODEL_COLUMNS    24
#define FALLBACK_COLUMNS 80
#define BEFORE_PROMPT    (16 + 2 + 7 + 2 + MODEL_COLUMNS + 2 + 5 + 2 + 9 + 2 + 11 + 2) /* columns */
#define MICRO            1e6

/* --- the live runs ---------------------------------------------------------------------------------------- */

/* Calls show() for each live run, the newest first. False for lack of memory, or when show() says so. */
static bool each_live_run(const struct scoreboard *scoreboard, bool (*show)(void *context, const struct run_copy *copy),
                          void *context)
{
    const struct run_filter live = {.status = RUN_STATUS_RUNNING};
    struct run_copy copy = {.text = NULL};
    unsigned *indices = NULL;
    int count = run_table_list(scoreboard, &live, SHOWN_RUNS_MAX, &indices);
    bool good = count >= 0;

    for (int i = 0; good && i < count; i++) {
        enum run_read result = run_table_read(scoreboard, indices[i], &copy);

        if (result == RUN_READ_OK && copy.record.status == RUN_STATUS_RUNNING)
            good = show(context, &copy);
        else
            good = result != RUN_READ_NO_MEMORY;
    }
    run_copy_release(&copy);
    free(indices);
    return good;
}

/* --- JSON --------------------------------------------------------------------------------------------------- */

static bool append_record(void *context, const struct run_copy *copy)
{
    struct evbuffer *text = evbuffer_new();
    json_t *record = NULL;

    if (text != NULL && run_record_write(copy, RUN_RECORD_LISTED_PROMPT_BYTES, text))
        record = json_loadb((const char *)evbuffer_pullup(text, -1), evbuffer_get_length(text), JSON_ALLOW_NUL, NULL);
    if (text != NULL)
        evbuffer_free(text);
    return record != NULL && json_array_append_new(context, record) == 0;
}

static bool print_json(const struct scoreboard *scoreboard, json_t *report)
{
    json_t *live = json_array();

    if (live == NULL || json_object_set_new(report, "live", live) < 0 ||
        !each_live_run(scoreboard, append_record, live) ||
        json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(NUMBER_TEXT_DIGITS)) < 0)
        return false;
    putchar('\n');
    return true;
}

/* --- for a person ------------------------------------------------------------------------------------------- */

/* Columns of the terminal; a pipe has no end. */
static size_t terminal_columns(void)
{
    struct winsize size;

    if (!isatty(STDOUT_FILENO))
        return SIZE_MAX;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return FALLBACK_COLUMNS;
}

/* One character as it may be shown: a control character or a broken byte is a blank. Returns its bytes. */
static size_t next_character(const char *text, size_t length, const char **shown, size_t *shown_bytes, size_t *columns)
{
    mbstate_t state = {0};
    wchar_t character;
    size_t bytes = mbrtowc(&character, text, length, &state);
    int width = -1;

    if (bytes == 0 || bytes > length)
        bytes = 1;
    else
        width = wcwidth(character);
    *shown = width >= 0 ? text : " ";
    *shown_bytes = width >= 0 ? bytes : 1;
    *columns = width >= 0 ? (size_t)width : 1;
    return bytes;
}

/* Returns the columns it took, at most `columns`. */
static size_t print_clean(const char *text, size_t length, size_t columns)
{
    size_t used = 0;

    while (length > 0) {
        const char *shown;
        size_t shown_bytes, width;
        size_t bytes = next_character(text, length, &shown, &shown_bytes, &width);

        if (used + width > columns)
            break;
        fwrite(shown, 1, shown_bytes, stdout);
        used += width;
        text += bytes;
        length -= bytes;
    }
    return used;
}

static void print_cell(const char *text, size_t length, size_t columns)
{
    size_t used = print_clean(text, length, columns);

    printf("%*s", (int)(columns - used), "");
}

static long long integer(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static void print_totals(const json_t *report, pid_t master)
{
    const json_t *runs = json_object_get(report, "runs");
    char uptime[DURATION_TEXT_BYTES];

    duration_text(json_real_value(json_object_get(report, "uptime_secs")), uptime);
    printf("sandstorm %s runs: master %d, instance %s\n", string(report, "version"), (int)master,
           string(report, "instance"));
    printf("started   %s, %s ago\n", string(report, "started_at"), uptime);
    printf("runs      %lld live of %lld; since the start %lld completed, %lld error, %lld cancelled, $%.4f\n",
           integer(runs, "live"), integer(runs, "max"), integer(runs, "completed"), integer(runs, "error"),
           integer(runs, "cancelled"), json_real_value(json_object_get(report, "cost_usd")));
    printf("sandboxes %lld not deleted at the first try, and tried again\n", integer(report, "kill_queue"));
}

static void print_workers(const json_t *report)
{
    const json_t *workers = json_object_get(report, "workers");
    const json_t *worker;
    size_t i;

    printf("\n%-8s  %10s  %-8s  %5s  %11s  %7s  %9s\n", "WORKER", "GENERATION", "STATE", "RUNS", "CONNECTIONS", "ENDED",
           "HEARTBEAT");
    json_array_foreach(workers, i, worker)
    {
        char age[DURATION_TEXT_BYTES];

        duration_text((double)integer(worker, "heartbeat_age_ms") / 1000, age);
        printf("%-8lld  %10lld  %-8s  %5lld  %11lld  %7lld  %9s\n", integer(worker, "pid"),
               integer(worker, "generation"), string(worker, "state"), integer(worker, "live_runs"),
               integer(worker, "connections"), integer(worker, "ended_runs"), age);
    }
}

static bool print_run(void *context, const struct run_copy *copy)
{
    const struct run_record *record = &copy->record;
    size_t columns = *(const size_t *)context;
    size_t model_length, prompt_length;
    const char *model = run_copy_string(copy, RUN_STRING_MODEL, &model_length);
    const char *prompt = run_copy_string(copy, RUN_STRING_PROMPT, &prompt_length);
    char id[RUN_ID_DIGITS + 1], turns[24] = "-", cost[32] = "-", duration[DURATION_TEXT_BYTES];

    run_id_format(record->id, id);
    if (record->num_turns >= 0)
        snprintf(turns, sizeof turns, "%lld", (long long)record->num_turns);
    if (record->has_cost)
        snprintf(cost, sizeof cost, "$%.4f", record->cost_usd);
    duration_text((double)(realtime_us() - record->started_us) / MICRO, duration);
    printf("%-16s  %-7s  ", id, run_status_name((enum run_status)record->status));
    print_cell(model != NULL ? model : "-", model != NULL ? model_length : 1, MODEL_COLUMNS);
    printf("  %5s  %9s  %11s  ", turns, cost, duration);
    if (prompt != NULL && columns > BEFORE_PROMPT)
        print_clean(prompt, prompt_length, columns - BEFORE_PROMPT);
    putchar('\n');
    return true;
}

static bool print_runs(const struct scoreboard *scoreboard)
{
    size_t columns = terminal_columns();

    printf("\n%-16s  %-7s  %-*s  %5s  %9s  %11s  %s\n", "RUN", "STATE", MODEL_COLUMNS, "MODEL", "TURNS", "COST",
           "DURATION", "PROMPT");
    return each_live_run(scoreboard, print_run, &columns);
}

static bool print_text(const struct scoreboard *scoreboard, const json_t *report, pid_t master)
{
    setlocale(LC_CTYPE, "C.UTF-8"); /* what a character is; without it only ASCII is */
    print_totals(report, master);
    print_workers(report);
    return integer(json_object_get(report, "runs"), "live") == 0 || print_runs(scoreboard);
}

bool worker_print_status(const struct scoreboard *scoreboard, pid_t master, bool json)
{
    json_t *report = status_report(scoreboard);
    bool printed = report != NULL && (json ? print_json(scoreboard, report) : print_text(scoreboard, report, master));

    json_decref(report);
    return fflush(stdout) == 0 && printed && !ferror(stdout);
}
