/*
 * table: rows of cells under titles, for a person. Each column is as wide as it needs; the last one is cut where the
 * terminal ends. Cells may be outside text.
 */
#ifndef CLI_TABLE_H
#define CLI_TABLE_H

#include "cli/terminal.h"

#include <stdbool.h>
#include <stddef.h>

#define TABLE_COLUMNS_MAX 12

struct table_column {
    const char *title;
    bool is_number;     /* flush right */
    size_t columns_max; /* 0: no limit */
};

struct table; /* owned by who made it */

/* At most TABLE_COLUMNS_MAX of them, which stay the caller's. NULL for lack of memory. */
struct table *table_new(const struct table_column *columns, size_t count) __attribute__((warn_unused_result));
void table_free(struct table *table); /* NULL is allowed */

/* A row of as many cells, which are copied. False for lack of memory. */
bool table_add(struct table *table, const char *const *cells) __attribute__((warn_unused_result));

void table_print(const struct table *table, const struct terminal *terminal);

#endif
