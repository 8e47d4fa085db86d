#include "cli/runs_table.h"

#include "cli/format.h"
#include "cli/table.h"

#define MODEL_COLUMNS_MAX 24

static const struct table_column columns[] = {
    {"RUN", false, 0}, {"STATUS", false, 0}, {"MODEL", false, MODEL_COLUMNS_MAX}, {"TURNS", true, 0},
    {"COST", true, 0}, {"TIME", true, 0},    {"STARTED (UTC)", false, 0},         {"PROMPT", false, 0},
};

static bool add(struct table *table, const json_t *record)
{
    char turns[FORMAT_BYTES], cost[FORMAT_BYTES], seconds[FORMAT_BYTES], started[FORMAT_BYTES];
    const char *const cells[] = {
        format_text(json_object_get(record, "id")),
        format_text(json_object_get(record, "status")),
        format_text(json_object_get(record, "model")),
        format_count(json_object_get(record, "num_turns"), turns),
        format_cost(json_object_get(record, "cost_usd"), cost),
        format_seconds(json_object_get(record, "duration_secs"), seconds),
        format_instant(json_object_get(record, "started_at"), started),
        format_text(json_object_get(record, "prompt")),
    };

    return table_add(table, cells);
}

void runs_table_print(const json_t *records)
{
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    struct terminal out;
    const json_t *record;
    size_t i;
    bool good = table != NULL;

    terminal_open(&out, stdout);
    json_array_foreach(records, i, record)
    {
        good = good && add(table, record);
    }
    if (good)
        table_print(table, &out);
    table_free(table);
}
