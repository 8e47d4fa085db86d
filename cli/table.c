#include "cli/table.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define GAP "  "

struct table {
    const struct table_column *columns;
    size_t count;
    char **cells; /* row by row */
    size_t rows;
    size_t widths[TABLE_COLUMNS_MAX];
};

struct table *table_new(const struct table_column *columns, size_t count)
{
    struct table *table = calloc(1, sizeof *table);

    if (table == NULL)
        return NULL;
    table->columns = columns;
    table->count = count;
    for (size_t i = 0; i < count; i++)
        table->widths[i] = terminal_width(columns[i].title);
    return table;
}

void table_free(struct table *table)
{
    if (table == NULL)
        return;
    for (size_t i = 0; i < table->rows * table->count; i++)
        free(table->cells[i]);
    free(table->cells);
    free(table);
}

static void widen(struct table *table, size_t column, const char *cell)
{
    size_t width = terminal_width(cell), limit = table->columns[column].columns_max;

    if (limit > 0 && width > limit)
        width = limit;
    if (width > table->widths[column])
        table->widths[column] = width;
}

bool table_add(struct table *table, const char *const *cells)
{
    size_t used = table->rows * table->count;
    char **longer = realloc(table->cells, (used + table->count) * sizeof *longer);

    if (longer == NULL)
        return false;
    table->cells = longer;
    for (size_t i = 0; i < table->count; i++) {
        longer[used + i] = strdup(cells[i]);
        if (longer[used + i] == NULL) {
            while (i-- > 0)
                free(longer[used + i]);
            return false;
        }
        widen(table, i, cells[i]);
    }
    table->rows++;
    return true;
}

static void print_row(const struct table *table, const struct terminal *terminal, const char *const *cells)
{
    size_t left = terminal_columns(terminal);

    for (size_t i = 0; i < table->count; i++) {
        bool is_last = i + 1 == table->count;
        size_t width = is_last ? left : table->widths[i];
        size_t pad = terminal_width(cells[i]) < table->widths[i] ? table->widths[i] - terminal_width(cells[i]) : 0;

        if (width > left)
            width = left;
        if (table->columns[i].is_number)
            fprintf(terminal->stream, "%*s", (int)pad, "");
        (void)terminal_cell(terminal, cells[i], width);
        if (!is_last)
            fprintf(terminal->stream, "%*s" GAP, table->columns[i].is_number ? 0 : (int)pad, "");
        if (left != SIZE_MAX)
            left -= table->widths[i] + strlen(GAP) < left ? table->widths[i] + strlen(GAP) : left;
    }
    fputc('\n', terminal->stream);
}

void table_print(const struct table *table, const struct terminal *terminal)
{
    const char *titles[TABLE_COLUMNS_MAX];

    for (size_t i = 0; i < table->count; i++)
        titles[i] = table->columns[i].title;
    terminal_style(terminal, STYLE_BOLD);
    print_row(table, terminal, titles);
    terminal_style(terminal, STYLE_NONE);
    for (size_t i = 0; i < table->rows; i++)
        print_row(table, terminal, (const char *const *)table->cells + i * table->count);
}
