/*
 * run_table: the runs of an instance in shared memory: live ones, and the newest ended ones (http-api.md section 9).
 *
 * A slot per run. Its worker alone writes it, through a struct run_entry; any process reads it, lists it, or asks for
 * its cancel. A reader never sees a torn record: the slot's sequence is odd while one is written, and what was read
 * under a sequence that has changed is read again.
 *
 * A slot is also the lease of the run's sandbox: what a worker leaves behind when it dies is in a slot whose owner is
 * dead, for another worker to adopt. A lease lives longer than its run, until the sandbox is known to be gone.
 *
 * Cost: 64 bytes a slot are scanned by take, end, find and list; a record is copied word by word, a small one in a
 * microsecond. Memory is touched only as far as it is used: 1 KiB a run, and pages of its own for long texts.
 */
#ifndef COMMON_RUN_TABLE_H
#define COMMON_RUN_TABLE_H

#include "common/scoreboard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RUN_SANDBOX_ID_MAX_BYTES   64
#define RUN_RAW_PROMPT_MAX_BYTES   (64u << 10)
#define RUN_CONFIG_MAX_BYTES       (32u << 10)
#define RUN_ERROR_MAX_BYTES        4096u
#define RUN_NAME_MAX_BYTES         128u /* of every other text */
#define RUN_PROMPT_MAX_CODE_POINTS 100

enum run_status { RUN_STATUS_RUNNING, RUN_STATUS_COMPLETED, RUN_STATUS_ERROR, RUN_STATUS_CANCELLED, RUN_STATUS_COUNT };

/* The texts of a record. */
enum run_string {
    RUN_STRING_PROMPT, /* its first RUN_PROMPT_MAX_CODE_POINTS */
    RUN_STRING_RAW_PROMPT,
    RUN_STRING_MODEL,
    RUN_STRING_ERROR,
    RUN_STRING_ERROR_CODE,
    RUN_STRING_AGENT_SESSION_ID,
    RUN_STRING_SANDBOX_ID,
    RUN_STRING_TEAM_ID,
    RUN_STRING_USER_ID,
    RUN_STRING_CHANNEL_ID,
    RUN_STRING_CONFIG, /* JSON text of config_snapshot */
    RUN_STRING_RESULT_SUBTYPE,
    RUN_STRING_TRIGGER,
    RUN_STRING_COUNT
};

#define RUN_TEXT_NULL UINT32_MAX

/* Where a text stands among the slot's. offset 0: no place was given to it yet. */
struct run_text {
    uint32_t offset;
    uint32_t length; /* RUN_TEXT_NULL: null */
};

/* A multiple of 8 bytes: it is shared word by word. */
struct run_record {
    uint64_t id;
    int64_t started_us;  /* CLOCK_REALTIME */
    int64_t ended_us;    /* 0: not yet */
    int64_t duration_us; /* -1: not known */
    int64_t num_turns;   /* -1: null */
    double cost_usd;
    int32_t exit_code;
    uint32_t files_count;
    uint32_t text_bytes; /* of all texts */
    uint8_t status;      /* enum run_status */
    bool has_cost;
    bool has_exit_code;
    bool prompt_truncated;
    bool is_local; /* its sandbox is of the local runtime */
    uint8_t unused[7];
    struct run_text strings[RUN_STRING_COUNT];
};

enum run_lease {
    RUN_LEASE_NONE,     /* no sandbox, or it is gone */
    RUN_LEASE_CREATING, /* one may exist whose id is unknown: found by its metadata */
    RUN_LEASE_LIVE,     /* it exists */
    RUN_LEASE_DELETING, /* its run has ended; the deletion is under way */
};

/* --- the owner's side ------------------------------------------------------------------------------- */

/* A slot as its owner holds it. The record is private until it is published. */
struct run_entry {
    struct scoreboard *scoreboard;
    unsigned index;
    struct run_record record;
};

/*
 * Takes a slot for a new run; nobody sees it before run_entry_publish(). False when the id is not free (draw another
 * one) or there is no slot (never as long as admission keeps max_runs).
 */
bool run_entry_take(struct run_entry *entry, struct scoreboard *scoreboard, uint64_t owner, uint64_t id)
    __attribute__((warn_unused_result));
/*
 * Of no owner, to be ended at once: for what is restored from disk. The id is free. False when there is no slot.
 */
bool run_entry_take_ended(struct run_entry *entry, struct scoreboard *scoreboard, uint64_t id, bool by_cancel)
    __attribute__((warn_unused_result));

/*
 * Sets a text, NULL for null; to be published soon, since readers may have to wait for it. UTF-8, may hold NUL; what is
 * longer than its limit is cut between characters.
 */
void run_entry_set(struct run_entry *entry, enum run_string which, const char *text, size_t length);
/* Shows the record as it now is. */
void run_entry_publish(struct run_entry *entry);

/* Is it to be cancelled? Was its sandbox seen to be gone? */
bool run_entry_is_cancelled(const struct run_entry *entry);
bool run_entry_is_lost(const struct run_entry *entry);
/*
 * The first half of the end: from here on no cancel is accepted. True if one had been. Then the record is completed,
 * and run_entry_end() shows it as history and lets go of it; the lease stays.
 */
bool run_entry_begin_end(struct run_entry *entry) __attribute__((warn_unused_result));
void run_entry_end(struct run_entry *entry);

/* A lease outlives its entry: it is named by slot and run. */
struct run_lease_name {
    unsigned index;
    uint64_t id;
};

struct run_lease_name run_entry_lease_name(const struct run_entry *entry);
/* The sandbox's key is the caller's own: nobody but this worker can delete it. Before the first lease. */
void run_entry_mark_foreign(struct run_entry *entry);

/*
 * Owner only. CREATING: until_ms (CLOCK_MONOTONIC) is when the last sandbox of the run may come to be; 0 while a create
 * is under way. LIVE and DELETING want the sandbox's id and the CLOCK_MONOTONIC end of its time to live.
 */
void run_lease_creating(struct scoreboard *scoreboard, struct run_lease_name name, int64_t until_ms);
void run_lease_hold(struct scoreboard *scoreboard, struct run_lease_name name, enum run_lease lease,
                    const char *sandbox_id, int64_t expires_ms);
void run_lease_clear(struct scoreboard *scoreboard, struct run_lease_name name);

/* --- what the dead left ------------------------------------------------------------------------------ */

/* What was adopted: a run that has to be ended, a lease that has to be seen to, or both. */
struct run_orphan {
    struct run_entry entry;
    bool was_live; /* begin_end() is done: complete the record, run_entry_end() */
    bool was_cancelled;
    enum run_lease lease;
    bool is_foreign; /* its key died with its worker */
    char sandbox_id[RUN_SANDBOX_ID_MAX_BYTES + 1];
    int64_t expires_ms; /* CREATING: the lease's until_ms */
};

/*
 * Adopts one slot whose owner is dead, from *cursor (0 at first) on; false when there is none. Each orphan is given to
 * one process only.
 */
bool run_table_adopt(struct scoreboard *scoreboard, uint64_t owner, unsigned *cursor, struct run_orphan *orphan)
    __attribute__((warn_unused_result));

/* --- everybody's side -------------------------------------------------------------------------------- */

/* A record that was read: one buffer, used again for the next. Free with run_copy_release(). */
struct run_copy {
    struct run_record record;
    char *text;
    size_t capacity;
};

void run_copy_release(struct run_copy *copy);
/* The text, not terminated; NULL for null. */
const char *run_copy_string(const struct run_copy *copy, enum run_string which, size_t *length);

enum run_read {
    RUN_READ_OK,
    RUN_READ_GONE, /* it was forgotten meanwhile, or its writer died in the middle of a word */
    RUN_READ_NO_MEMORY,
};

enum run_read run_table_read(const struct scoreboard *scoreboard, unsigned index, struct run_copy *copy)
    __attribute__((warn_unused_result));

/* The slot of a run, -1 when it is unknown. */
int run_table_find(const struct scoreboard *scoreboard, uint64_t id);

/* Which runs a list holds. */
struct run_filter {
    int status;      /* enum run_status, -1: all */
    uint64_t before; /* id: only those that began before this one; 0: all */
};

/*
 * The newest first, at most `limit` slots. Returns how many, -1 when `before` is unknown, -2 for lack of memory.
 * *indices is the caller's to free.
 */
int run_table_list(const struct scoreboard *scoreboard, const struct run_filter *filter, size_t limit,
                   unsigned **indices) __attribute__((warn_unused_result));

enum run_cancel {
    RUN_CANCEL_UNKNOWN,  /* no such run */
    RUN_CANCEL_ACCEPTED, /* its owner is to be told */
    RUN_CANCEL_REPEATED, /* it was accepted before, perhaps the run has ended by it */
    RUN_CANCEL_ENDED,    /* *status says how it had ended */
};

/* *owner: serial of the worker that has to act. */
enum run_cancel run_table_cancel(struct scoreboard *scoreboard, uint64_t id, uint64_t *owner, enum run_status *status);

/*
 * Somebody knows that this sandbox is gone. True when it is that of this live run, which is to be ended: *owner is the
 * serial of the worker that has to act.
 */
bool run_table_report_lost(struct scoreboard *scoreboard, uint64_t id, const char *sandbox_id, uint64_t *owner);

/* Is the run live, or its lease held? Then its sandbox is somebody's business already. */
bool run_table_needs_sandbox(const struct scoreboard *scoreboard, uint64_t id);

/* Leases of a worker, by its serial. */
unsigned run_table_count_leases(const struct scoreboard *scoreboard, uint64_t owner);
/* Sandboxes that exist and are not yet known to be deleted, of all workers, dead ones too. */
unsigned run_table_count_sandboxes(const struct scoreboard *scoreboard);

/* 16 lower-case hex digits, as clients see them; text is not terminated. */
#define RUN_ID_DIGITS 16
void run_id_format(uint64_t id, char out[static RUN_ID_DIGITS + 1]);
bool run_id_parse(const char *text, size_t length, uint64_t *id) __attribute__((warn_unused_result));

const char *run_status_name(enum run_status status);

/* --- for scoreboard.c -------------------------------------------------------------------------------- */

unsigned run_table_slots(const struct scoreboard_sizes *sizes);
size_t run_table_bytes(const struct scoreboard_sizes *sizes);
/* Differs for each way the table is laid out. */
#define RUN_TABLE_LAYOUT (sizeof(struct run_record) << 12)

#endif
