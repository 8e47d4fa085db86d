/*
 * metrics: counters and histograms of an instance in shared memory (http-api.md section 11).
 *
 * Each worker slot of the scoreboard has cells of its own, which only the worker in it writes. They stay as they are
 * when the worker dies, and its successor in the slot goes on from there: a total is the sum over all slots ever used,
 * so it never goes down, and nothing is locked. A process counts into one slot, which is what it is, as with log.h.
 *
 * Cost: metrics_add() is a load and a store of the slot's own cache line, without a lock prefix: one per event and one
 * per flush of a stream. A label is hashed and compared with at most 64 others: once or twice a request to the sandbox
 * service, a few times a run.
 *
 * Memory is touched as far as it is used: the labels that come first share a page. A slot that counts five models and
 * five statuses costs two pages, one that was never taken costs none.
 */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include "common/run_table.h"
#include "common/scoreboard.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum metric {
    METRIC_REQUESTS, /* ended runs */
    METRIC_REQUEST_DURATION,
    METRIC_AGENT_EXECUTION,
    METRIC_FIRST_EVENT,
    METRIC_COST, /* in millionths */
    METRIC_ERRORS,
    METRIC_SANDBOX_CREATION,
    METRIC_SANDBOX_CALLS,
    METRIC_SANDBOX_RETRIES,
    METRIC_LEAKS_REAPED,
    METRIC_EVENTS,
    METRIC_STREAM_BYTES,
    METRIC_PAUSES,
    METRIC_ADMISSION_REJECTED,
    METRIC_QUEUE_DROPS,
    METRIC_WEBHOOK_EVENTS,
    METRIC_TRIGGER_SKIPPED,
    METRIC_TELEMETRY_DROPPED, /* spans, and series of metrics */
    METRIC_COUNT
};

enum metric_type {
    METRIC_COUNTER,
    METRIC_MICRO_COUNTER, /* counted in millionths of what is shown */
    METRIC_HISTOGRAM,     /* of microseconds, shown as seconds */
};

/* Labels whose values come from outside: the first 64 distinct ones are kept, later ones count as `other`. */
enum metric_label {
    METRIC_LABEL_NONE,
    METRIC_LABEL_MODEL,
    METRIC_LABEL_TEMPLATE,
    METRIC_LABEL_ERROR_TYPE,
    METRIC_LABEL_STATUS, /* of a request to the sandbox service: a number, or a word where no answer came */
    METRIC_LABEL_EVENT_TYPE,
    METRIC_LABEL_TRIGGER,
    METRIC_LABEL_COUNT
};

#define METRICS_LABELS_MAX      64
#define METRICS_LABEL_MAX_BYTES 64                       /* cut there, between characters */
#define METRICS_ROWS            (METRICS_LABELS_MAX + 1) /* one per value, the last is `other` */
#define METRICS_BUCKETS         15                       /* the last is +Inf */
#define METRICS_COLUMNS_MAX     (METRICS_BUCKETS + 1)

/* Values of the labels that are ours, in the order of their names. */
enum metric_outcome { METRIC_OUTCOME_OK, METRIC_OUTCOME_ERROR, METRIC_OUTCOME_CANCELLED, METRIC_OUTCOME_COUNT };

enum metric_operation {
    METRIC_OPERATION_START, /* the agent */
    METRIC_OPERATION_CREATE,
    METRIC_OPERATION_UPLOAD,
    METRIC_OPERATION_READ,
    METRIC_OPERATION_FIND,    /* the files an agent wrote */
    METRIC_OPERATION_INSTALL, /* the SDK, where the template lacks it */
    METRIC_OPERATION_SIGNAL,
    METRIC_OPERATION_PROBE, /* of a sandbox */
    METRIC_OPERATION_DELETE,
    METRIC_OPERATION_LIST, /* sandboxes by their metadata */
    METRIC_OPERATION_HEALTH,
    METRIC_OPERATION_COUNT
};

enum metric_rejection {
    METRIC_REJECTED_MAX_RUNS,
    METRIC_REJECTED_BODY_MEMORY,
    METRIC_REJECTED_STOPPING,
    METRIC_REJECTED_COUNT
};

enum metric_telemetry { METRIC_TELEMETRY_TRACES, METRIC_TELEMETRY_METRICS, METRIC_TELEMETRY_COUNT };

enum metric_skip { METRIC_SKIPPED_OVERLAP, METRIC_SKIPPED_FULL, METRIC_SKIPPED_LATE, METRIC_SKIPPED_COUNT };

/* --- counting ----------------------------------------------------------------------------------------- */

/* From now on this process counts into the slot. Before, and with NULL, nothing is counted. */
void metrics_open(struct scoreboard *scoreboard, int slot);

/* A counter without labels. */
void metrics_add(enum metric metric, uint64_t n);
/* Any counter: label NULL where it has none or it is unknown (""), choice 0 where it has no label of ours. */
void metrics_count(enum metric metric, const char *label, unsigned choice, uint64_t n);
/* Any histogram. What is negative counts as 0. */
void metrics_observe(enum metric metric, const char *label, int64_t duration_us);

/* A run that has ended. */
struct metrics_run {
    const char *model;      /* the effective one; NULL: none */
    enum run_status status; /* not RUN_STATUS_RUNNING */
    const char *error_code; /* of the record; NULL or "": none */
    int64_t duration_us;    /* admission to end */
    int64_t agent_us;       /* start event to the agent's end; -1: it never started */
    double cost_usd;        /* 0 when unknown */
};

void metrics_run_ended(const struct metrics_run *run);
/* A request to the sandbox service was answered (status), or was not (status 0; the word says why). */
void metrics_sandbox_call(enum metric_operation operation, int status, const char *word);

/* --- reading ------------------------------------------------------------------------------------------ */

struct metric_family {
    const char *name;
    const char *help;
    enum metric_type type;
    enum metric_label label;
    const char *choice_name; /* NULL: it has no label of ours */
    const char *const *choices;
    unsigned choice_count; /* 0 without */
};

const struct metric_family *metrics_family(enum metric metric);
const char *metrics_label_name(enum metric_label label);
/* The upper bound of a bucket, as it is shown. */
const char *metrics_bucket_bound(unsigned bucket);

/* A label's value as it came, not terminated; false when the row has none (yet). Row 0 of METRIC_LABEL_NONE is "". */
bool metrics_row(const struct scoreboard *scoreboard, enum metric_label label, unsigned row,
                 char value[static METRICS_LABEL_MAX_BYTES], size_t *length);
/*
 * The totals of a row: of a counter one for each choice, or one; of a histogram one for each bucket (not cumulative)
 * and the sum in microseconds.
 */
void metrics_read(const struct scoreboard *scoreboard, enum metric metric, unsigned row,
                  uint64_t totals[static METRICS_COLUMNS_MAX]);
/* Over all values of its label. */
uint64_t metrics_total(const struct scoreboard *scoreboard, enum metric metric, unsigned choice);

/* --- for scoreboard.c --------------------------------------------------------------------------------- */

/* The cells stand at the end of the mapping. */
size_t metrics_bytes(void);
/* Differs for each way they are laid out. */
uint64_t metrics_layout(void);

#endif
