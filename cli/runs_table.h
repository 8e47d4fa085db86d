/* runs_table: records of runs (http-api.md 9) as rows. */
#ifndef CLI_RUNS_TABLE_H
#define CLI_RUNS_TABLE_H

#include <jansson.h>

/* To standard output. */
void runs_table_print(const json_t *records);

#endif
