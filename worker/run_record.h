/*
 * run_record: the record of a run as JSON text (http-api.md section 9): what GET /runs answers, what a webhook is sent
 * and what stands in the history.
 */
#ifndef WORKER_RUN_RECORD_H
#define WORKER_RUN_RECORD_H

#include "common/run_table.h"

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What lists show of raw_prompt. */
#define RUN_RECORD_LISTED_PROMPT_BYTES 4096u

/*
 * Adds one record on one line, without the end of the line: keys in their order, bytes that are no UTF-8 as U+FFFD.
 * raw_prompt is cut between characters to what fits into raw_prompt_max_bytes; prompt_truncated is true then. False for
 * lack of memory, or when the record's texts cannot be its own; *out then holds a part of it.
 */
bool run_record_write(const struct run_copy *copy, size_t raw_prompt_max_bytes, struct evbuffer *out)
    __attribute__((warn_unused_result));

/* What tells one line of a history from the others. */
struct run_record_summary {
    uint64_t id;
    int64_t started_us; /* 0: not said */
    bool is_running;
    bool by_cancel; /* it ended because somebody asked for it */
    bool is_ours;   /* every key is there: else it is of the Python reference, or of another version */
};

/* False when the line is no record that can be kept: no JSON, no object, no id of ours. */
bool run_record_summarise(const char *line, size_t length, struct run_record_summary *summary)
    __attribute__((warn_unused_result));

/*
 * Reads a line that was summarised into an entry that was taken for its id. What is missing or of a wrong type is null
 * or 0; what is unknown is ignored; contents of files are dropped. A run that was still running has ended with
 * server_shutdown. False for lack of memory.
 */
bool run_record_read(const char *line, size_t length, struct run_entry *entry) __attribute__((warn_unused_result));

#endif
