/*
 * history_file: the file in which an instance keeps its runs: state_dir/runs.jsonl (http-api.md section 9). A record a
 * line, the whole record at each change; the last line of a run counts.
 *
 * Every worker appends, each line in one write(2) under flock(LOCK_EX), so that the file ends with a whole line
 * whenever the lock is free: a line that did not fit is cut off again. Compaction replaces the file by another one
 * under the same lock; a lock that is won on a file that no longer has the name is given back, and won anew on the one
 * that has.
 */
#ifndef WORKER_HISTORY_FILE_H
#define WORKER_HISTORY_FILE_H

#include "common/run_table.h"
#include "common/scoreboard.h"

#include <event2/buffer.h>
#include <stdbool.h>
#include <stddef.h>

struct history_file {
    char *path;
    int fd; /* -1: not open */
    struct scoreboard *scoreboard;
};

enum history_lock {
    HISTORY_LOCKED,
    HISTORY_BUSY,   /* another process has the lock */
    HISTORY_FAILED, /* errno says why */
};

/* Opens nothing yet. False for lack of memory. */
bool history_file_init(struct history_file *file, const char *state_dir, struct scoreboard *scoreboard)
    __attribute__((warn_unused_result));
/* Gives the lock back, too. */
void history_file_close(struct history_file *file);
void history_file_release(struct history_file *file);

/* Opens the file, which is made if need be, and locks it; with wait set it is never HISTORY_BUSY. */
enum history_lock history_file_lock(struct history_file *file, bool wait) __attribute__((warn_unused_result));
void history_file_unlock(struct history_file *file);

/* Under the lock: one line, with its end. False with errno; the file is as it was then. */
bool history_file_append(struct history_file *file, const char *line, size_t length)
    __attribute__((warn_unused_result));

/* Could a line be appended? Asks the file system, not a look at modes; needs no lock. False with errno. */
bool history_file_is_writable(const struct history_file *file) __attribute__((warn_unused_result));

/* The record of a slot as a line of the file, added to out. *copy is a buffer to be used again. */
enum run_read history_line_add(const struct scoreboard *scoreboard, unsigned index, struct run_copy *copy,
                               struct evbuffer *out) __attribute__((warn_unused_result));

#endif
