/*
 * history_lines: the lines of a history as they stand in memory, and which of them count: of each run the last.
 */
#ifndef WORKER_HISTORY_LINES_H
#define WORKER_HISTORY_LINES_H

#include "worker/run_record.h"

#include <stdbool.h>
#include <stddef.h>

struct history_line {
    const char *text; /* borrowed; without its end */
    size_t length;
    size_t number; /* from 1 on */
    size_t rank;   /* from 0 on: as the how manieth of the kept ones it ended */
    struct run_record_summary summary;
};

struct history_lines {
    struct history_line *lines; /* the last of each run */
    size_t count;
    size_t total;         /* lines of the text */
    size_t useless;       /* no records */
    size_t first_useless; /* number of the first of them */
};

/* Reads a text whose last line may lack its end. The text must outlive the lines. False for lack of memory. */
bool history_lines_read(struct history_lines *lines, const char *text, size_t length)
    __attribute__((warn_unused_result));
void history_lines_release(struct history_lines *lines);

/* How many have not ended. */
size_t history_lines_running(const struct history_lines *lines);
/*
 * Leaves the newest and ranks them: in the order in which they ended, which is that of their places in the text; those
 * that have not ended are the newest.
 */
void history_lines_keep_newest(struct history_lines *lines, size_t max);

/* Two orders of what is left. */
void history_lines_sort_by_start(struct history_lines *lines);
void history_lines_sort_by_place(struct history_lines *lines);

#endif
