#include "worker/history_lines.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 1024

/* --- orders ---------------------------------------------------------------------------------------------- */

static int compare(uint64_t left, uint64_t right)
{
    return left < right ? -1 : left > right ? 1 : 0;
}

static int by_place(const void *left, const void *right)
{
    return compare(((const struct history_line *)left)->number, ((const struct history_line *)right)->number);
}

static int by_run(const void *left, const void *right)
{
    const struct history_line *one = left, *other = right;
    int order = compare(one->summary.id, other->summary.id);

    return order != 0 ? order : by_place(left, right);
}

static int by_end(const void *left, const void *right)
{
    const struct history_line *one = left, *other = right;
    int order = compare(one->summary.is_running, other->summary.is_running);

    return order != 0 ? order : by_place(left, right);
}

static int by_start(const void *left, const void *right)
{
    int64_t one = ((const struct history_line *)left)->summary.started_us;
    int64_t other = ((const struct history_line *)right)->summary.started_us;

    return one < other ? -1 : one > other ? 1 : by_place(left, right);
}

static void sort(struct history_lines *lines, int (*order)(const void *left, const void *right))
{
    if (lines->count > 0)
        qsort(lines->lines, lines->count, sizeof *lines->lines, order);
}

void history_lines_sort_by_start(struct history_lines *lines)
{
    sort(lines, by_start);
}

void history_lines_sort_by_place(struct history_lines *lines)
{
    sort(lines, by_place);
}

/* --- reading --------------------------------------------------------------------------------------------- */

static bool reserve(struct history_lines *lines, size_t *capacity)
{
    size_t wanted = *capacity > 0 ? 2 * *capacity : FIRST_CAPACITY;
    struct history_line *grown;

    if (lines->count < *capacity)
        return true;
    grown = realloc(lines->lines, wanted * sizeof *grown);
    if (grown == NULL)
        return false;
    lines->lines = grown;
    *capacity = wanted;
    return true;
}

static void take(struct history_lines *lines, const char *text, size_t length)
{
    struct history_line *line = &lines->lines[lines->count];

    *line = (struct history_line){.text = text, .length = length, .number = ++lines->total};
    if (run_record_summarise(text, length, &line->summary))
        lines->count++;
    else if (lines->useless++ == 0)
        lines->first_useless = line->number;
}

/* Of lines in the order of their runs, the last of each. */
static void leave_last_of_each(struct history_lines *lines)
{
    size_t left = 0;

    for (size_t i = 0; i < lines->count; i++) {
        if (i + 1 == lines->count || lines->lines[i].summary.id != lines->lines[i + 1].summary.id)
            lines->lines[left++] = lines->lines[i];
    }
    lines->count = left;
}

bool history_lines_read(struct history_lines *lines, const char *text, size_t length)
{
    const char *end = text + length;
    size_t capacity = 0;

    *lines = (struct history_lines){.lines = NULL};
    while (text < end) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));

        if (line_end == NULL)
            line_end = end;
        if (!reserve(lines, &capacity)) {
            history_lines_release(lines);
            return false;
        }
        take(lines, text, (size_t)(line_end - text));
        text = line_end + 1;
    }
    sort(lines, by_run);
    leave_last_of_each(lines);
    return true;
}

void history_lines_release(struct history_lines *lines)
{
    free(lines->lines);
    *lines = (struct history_lines){.lines = NULL};
}

size_t history_lines_running(const struct history_lines *lines)
{
    size_t running = 0;

    for (size_t i = 0; i < lines->count; i++)
        running += lines->lines[i].summary.is_running;
    return running;
}

void history_lines_keep_newest(struct history_lines *lines, size_t max)
{
    size_t forgotten = lines->count > max ? lines->count - max : 0;

    sort(lines, by_end);
    lines->count -= forgotten;
    if (forgotten > 0)
        memmove(lines->lines, lines->lines + forgotten, lines->count * sizeof *lines->lines);
    for (size_t i = 0; i < lines->count; i++)
        lines->lines[i].rank = i;
}
