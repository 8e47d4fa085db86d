#include "cli/ds.h"
#include "cli/format.h"
#include "cli/options.h"
#include "cli/surroundings.h"
#include "cli/table.h"
#include "cli/trigger.h"
#include "cli/triggers.h"
#include "common/cron.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NEXT_MAX 100

enum { OPTION_JSON = OPTION_OWN, OPTION_DIR };

static const struct option longs[] = {{"next", required_argument, NULL, 'n'},
                                      {"json", no_argument, NULL, OPTION_JSON},
                                      {"project-dir", required_argument, NULL, OPTION_DIR},
                                      {0}};

static const struct table_column columns[] = {
    {"NAME", false, 0}, {"TYPE", false, 0}, {"WHEN", false, 40}, {"SECRET", false, 0}, {"NEXT (UTC)", false, 0}};

struct list {
    const char *command;
    const char *project_dir;
    struct surroundings at;
    long next; /* instants of each schedule */
    bool json;
    bool has_fault; /* one of them can never fire */
};

/* --- one trigger ---------------------------------------------------------------------------------------------- */

/* What its type says of when it fires. */
static const char *when_of(const json_t *trigger)
{
    const char *when = field_string(trigger, trigger_is(trigger, "cron") ? "schedule" : "path");

    return when != NULL ? when : "-";
}

static const char *secret_of(struct list *list, const json_t *trigger)
{
    static const char *const words[] = {[TRIGGER_SECRET_NONE] = "-",
                                        [TRIGGER_SECRET_SET] = "set",
                                        [TRIGGER_SECRET_PUBLIC] = "public",
                                        [TRIGGER_SECRET_MISSING] = "missing"};
    char *text;
    enum trigger_secret secret = trigger_secret(trigger, list->at.environment, &text);

    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
    list->has_fault = list->has_fault || secret == TRIGGER_SECRET_MISSING;
    return words[secret];
}

/* As in records of runs. */
static json_t *instant_text(int64_t at_s)
{
    char text[FORMAT_BYTES];
    time_t at = (time_t)at_s;
    struct tm tm;

    if (gmtime_r(&at, &tm) == NULL)
        return NULL;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S+00:00", &tm);
    return json_string(text);
}

/* The next instants of a schedule: an array, empty for what has none; *reason when it is no schedule, else NULL. */
static json_t *next_of(struct list *list, const json_t *trigger, const char **reason)
{
    json_t *instants = json_array();
    const char *schedule = field_string(trigger, "schedule");
    int64_t at_s = (int64_t)time(NULL);
    struct cron cron;

    *reason = NULL;
    if (!trigger_is(trigger, "cron"))
        return instants;
    if (schedule == NULL)
        *reason = "it is missing";
    else if (cron_parse(schedule, &cron, reason))
        *reason = NULL;
    for (long i = 0; *reason == NULL && i < list->next && (at_s = cron_next(&cron, at_s)) >= 0; i++)
        json_array_append_new(instants, instant_text(at_s));
    list->has_fault = list->has_fault || *reason != NULL;
    return instants;
}

/* --- all of them ---------------------------------------------------------------------------------------------- */

/* A row, and one for each further instant. */
static bool add_rows(struct list *list, struct table *table, const json_t *trigger)
{
    const char *reason;
    json_t *next = next_of(list, trigger, &reason);
    char texts[FORMAT_BYTES];
    const char *cells[] = {format_text(json_object_get(trigger, "name")), format_text(json_object_get(trigger, "type")),
                           when_of(trigger), secret_of(list, trigger),
                           reason != NULL               ? "no schedule"
                           : json_array_size(next) == 0 ? "-"
                                                        : format_instant(json_array_get(next, 0), texts)};
    bool good = table_add(table, cells);
    struct terminal err;

    if (reason != NULL) {
        terminal_open(&err, stderr);
        fprintf(stderr, "%s: ", list->command);
        terminal_line(&err, cells[0]);
        fprintf(stderr, ": no schedule: %s\n", reason);
    }
    for (size_t i = 1; good && i < json_array_size(next); i++) {
        const char *const more[] = {"", "", "", "", format_instant(json_array_get(next, i), texts)};

        good = table_add(table, more);
    }
    json_decref(next);
    return good;
}

static bool print_table(struct list *list, const json_t *triggers)
{
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct terminal out;
    const json_t *trigger;
    bool good = table != NULL;
    size_t i;

    terminal_open(&out, stdout);
    json_array_foreach(triggers, i, trigger)
    {
        good = good && add_rows(list, table, trigger);
    }
    if (good)
        table_print(table, &out);
    table_free(table);
    return good;
}

static json_t *as_json(struct list *list, const json_t *trigger)
{
    const char *reason;
    json_t *next = next_of(list, trigger, &reason);
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", format_text(json_object_get(trigger, "name")),
                               "type", format_text(json_object_get(trigger, "type")), "when", when_of(trigger),
                               "secret", secret_of(list, trigger), "next", next);

    if (object != NULL && reason != NULL)
        json_object_set_new(object, "fault", json_string(reason));
    return object;
}

static bool print_json(struct list *list, const json_t *triggers)
{
    json_t *array = json_array();
    const json_t *trigger;
    size_t i;
    bool good = array != NULL;

    json_array_foreach(triggers, i, trigger)
    {
        good = good && json_array_append_new(array, as_json(list, trigger)) == 0;
    }
    good = good && json_dumpf(array, stdout, JSON_INDENT(2)) == 0;
    fputc('\n', stdout);
    json_decref(array);
    return good;
}

static int print(struct list *list)
{
    json_t *project = surroundings_read_project(&list->at, list->command);
    const json_t *triggers = json_object_get(project, "triggers");
    bool good;

    if (project == NULL)
        return DS_FAILED;
    good = list->json ? print_json(list, triggers) : print_table(list, triggers);
    json_decref(project);
    if (list->has_fault)
        fprintf(stderr, "%s: a server would not start with these: see `ds check`\n", list->command);
    return terminal_close(list->command, stdout) && good && !list->has_fault ? DS_OK : DS_FAILED;
}

/* False after a message. */
static bool take(struct list *list, int code, const char *value)
{
    switch (code) {
    case 'n':
        return options_number(list->command, "--next", value, 1, NEXT_MAX, &list->next);
    case OPTION_JSON:
        return list->json = true;
    case OPTION_DIR:
        list->project_dir = value;
        return true;
    default:
        return options_unknown(list->command) == DS_OK;
    }
}

int trigger_list(int argc, char *argv[], const char *usage)
{
    struct list list = {.command = argv[0], .next = 1};
    int option, code;

    (void)usage;
    while ((option = getopt_long(argc, argv, "n:", longs, NULL)) != -1) {
        if (!take(&list, option, optarg))
            return DS_USAGE;
    }
    if (optind < argc)
        return options_reject(list.command, "list takes no words: %s", argv[optind]);
    if (!surroundings_open_dir(&list.at, list.command, list.project_dir))
        return DS_FAILED;
    code = print(&list);
    surroundings_close(&list.at);
    return code;
}
