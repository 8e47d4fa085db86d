#include "common/metrics.h"

#include "common/fnv1a.h"
#include "common/log.h"
#include "common/utf8_cut.h"

#include <stdio.h>
#include <string.h>

#define WORD_BYTES  8u
#define PAGE_BYTES  4096u
#define LINE_WORDS  (64u / WORD_BYTES)
#define ROW_OTHER   METRICS_LABELS_MAX
#define OTHER       "other"
#define USED_WORDS  2u /* one bit per row */
#define LABEL_WORDS (METRICS_LABEL_MAX_BYTES / WORD_BYTES)

typedef atomic_uint_least64_t shared_word;

/* --- the table ---------------------------------------------------------------------------------------- */

static const char *const outcomes[METRIC_OUTCOME_COUNT] = {"ok", "error", "cancelled"};

static const char *const operations[METRIC_OPERATION_COUNT] = {
    [METRIC_OPERATION_START] = "start",   [METRIC_OPERATION_CREATE] = "create", [METRIC_OPERATION_UPLOAD] = "upload",
    [METRIC_OPERATION_READ] = "read",     [METRIC_OPERATION_FIND] = "find",     [METRIC_OPERATION_INSTALL] = "install",
    [METRIC_OPERATION_SIGNAL] = "signal", [METRIC_OPERATION_PROBE] = "probe",   [METRIC_OPERATION_DELETE] = "delete",
    [METRIC_OPERATION_LIST] = "list",     [METRIC_OPERATION_HEALTH] = "health",
};

static const char *const rejections[METRIC_REJECTED_COUNT] = {"max_runs", "body_memory", "stopping"};
static const char *const skips[METRIC_SKIPPED_COUNT] = {"overlap", "full", "late"};

static const char *const telemetry_signals[METRIC_TELEMETRY_COUNT] = {"traces", "metrics"};

#define CHOICES(name, values)                                                                                          \
    .choice_name = (name), .choices = (values), .choice_count = sizeof(values) / sizeof *(values)

static const struct metric_family families[METRIC_COUNT] = {
    [METRIC_REQUESTS] = {.name = "sandstorm_requests_total",
                         .help = "Runs that have ended.",
                         .label = METRIC_LABEL_MODEL,
                         CHOICES("status", outcomes)},
    [METRIC_REQUEST_DURATION] = {.name = "sandstorm_request_duration_seconds",
                                 .help = "From the admission of a run to its end.",
                                 .type = METRIC_HISTOGRAM,
                                 .label = METRIC_LABEL_MODEL},
    [METRIC_AGENT_EXECUTION] = {.name = "sandstorm_agent_execution_seconds",
                                .help = "From the start of an agent's process to its end.",
                                .type = METRIC_HISTOGRAM,
                                .label = METRIC_LABEL_MODEL},
    [METRIC_FIRST_EVENT] = {.name = "sandstorm_first_event_seconds",
                            .help = "From the admission of a run to the first event of its agent.",
                            .type = METRIC_HISTOGRAM},
    [METRIC_COST] = {.name = "sandstorm_cost_usd_total",
                     .help = "What the agents of ended runs said they cost, in US dollars.",
                     .type = METRIC_MICRO_COUNTER,
                     .label = METRIC_LABEL_MODEL},
    [METRIC_ERRORS] = {.name = "sandstorm_errors_total",
                       .help = "Runs that ended with an error code, and refused callers.",
                       .label = METRIC_LABEL_ERROR_TYPE},
    [METRIC_SANDBOX_CREATION] = {.name = "sandstorm_sandbox_creation_seconds",
                                 .help = "From the first try to create a sandbox to its id.",
                                 .type = METRIC_HISTOGRAM,
                                 .label = METRIC_LABEL_TEMPLATE},
    [METRIC_SANDBOX_CALLS] = {.name = "sandstorm_sandbox_calls_total",
                              .help = "Requests to the sandbox service, by the HTTP status or why there was none.",
                              .label = METRIC_LABEL_STATUS,
                              CHOICES("operation", operations)},
    [METRIC_SANDBOX_RETRIES] = {.name = "sandstorm_sandbox_retries_total",
                                .help = "Requests to the sandbox service that were sent again after a failure.",
                                CHOICES("operation", operations)},
    [METRIC_LEAKS_REAPED] = {.name = "sandstorm_leaks_reaped_total",
                             .help = "Sandboxes found without a live run and handed over for deletion."},
    [METRIC_EVENTS] = {.name = "sandstorm_events_total", .help = "Events put on the streams of clients."},
    [METRIC_STREAM_BYTES] = {.name = "sandstorm_stream_bytes_total",
                             .help = "Bytes of events and pings put on the streams of clients."},
    [METRIC_PAUSES] = {.name = "sandstorm_backpressure_pauses_total",
                       .help = "How often an agent was paused because its client was slower."},
    [METRIC_ADMISSION_REJECTED] = {.name = "sandstorm_admission_rejected_total",
                                   .help = "Requests refused with 503.",
                                   CHOICES("reason", rejections)},
    [METRIC_QUEUE_DROPS] = {.name = "sandstorm_queue_drops_total", .help = "Always 0: nothing is ever dropped."},
    [METRIC_WEBHOOK_EVENTS] = {.name = "sandstorm_webhook_events_total",
                               .help = "Verified events of the sandbox service.",
                               .label = METRIC_LABEL_EVENT_TYPE},
    [METRIC_TRIGGER_SKIPPED] = {.name = "sandstorm_trigger_skipped_total",
                                .help = "Firings of triggers that started no run.",
                                .label = METRIC_LABEL_TRIGGER,
                                CHOICES("reason", skips)},
    [METRIC_TELEMETRY_DROPPED] = {.name = "sandstorm_telemetry_dropped_total",
                                  .help = "Spans and series of metrics that no collector took.",
                                  CHOICES("signal", telemetry_signals)},
};

static const char *const label_names[METRIC_LABEL_COUNT] = {
    [METRIC_LABEL_NONE] = "",
    [METRIC_LABEL_MODEL] = "model",
    [METRIC_LABEL_TEMPLATE] = "template",
    [METRIC_LABEL_ERROR_TYPE] = "error_type",
    [METRIC_LABEL_STATUS] = "status",
    [METRIC_LABEL_EVENT_TYPE] = "event_type",
    [METRIC_LABEL_TRIGGER] = "trigger",
};

static const struct {
    int64_t below_us; /* or equal */
    const char *shown;
} buckets[METRICS_BUCKETS] = {
    {100000, "0.1"},    {250000, "0.25"},   {500000, "0.5"},      {1000000, "1"},       {2500000, "2.5"},
    {5000000, "5"},     {10000000, "10"},   {30000000, "30"},     {60000000, "60"},     {120000000, "120"},
    {300000000, "300"}, {600000000, "600"}, {1800000000, "1800"}, {3600000000, "3600"}, {INT64_MAX, "+Inf"},
};

const struct metric_family *metrics_family(enum metric metric)
{
    if ((unsigned)metric >= METRIC_COUNT)
        log_panic("metrics: no metric %d", (int)metric);
    return &families[metric];
}

const char *metrics_label_name(enum metric_label label)
{
    return label_names[label];
}

const char *metrics_bucket_bound(unsigned bucket)
{
    return buckets[bucket].shown;
}

/* --- where things are ----------------------------------------------------------------------------------- */

/*
 * At the end of the mapping: the values of the labels, then a block per worker slot. A block is a head (which rows are
 * used; the cells without a label) and METRICS_ROWS rows. Row n holds the cells of each label's n-th value, of whatever
 * label: so the values that come first are side by side.
 */
struct shared_label {
    shared_word hash;   /* 0: free */
    shared_word length; /* + 1; 0: the text is still being written */
    shared_word text[LABEL_WORDS];
};

struct block_shape {
    unsigned places[METRIC_COUNT]; /* of the first cell: words from the start of the head or row */
    unsigned head_words;
    unsigned row_words;
    size_t bytes;
};

_Static_assert(sizeof operations / sizeof *operations <= METRICS_COLUMNS_MAX, "a reader's array holds every row");

static unsigned columns_of(const struct metric_family *family)
{
    unsigned choices = family->choice_count > 0 ? family->choice_count : 1;

    return family->type == METRIC_HISTOGRAM ? METRICS_BUCKETS + 1 : choices;
}

static unsigned whole_lines(unsigned words)
{
    return (words + LINE_WORDS - 1) / LINE_WORDS * LINE_WORDS;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static struct block_shape work_out_shape(void)
{
    struct block_shape shape = {.head_words = USED_WORDS};

    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        unsigned *end = families[i].label == METRIC_LABEL_NONE ? &shape.head_words : &shape.row_words;

        shape.places[i] = *end;
        *end += columns_of(&families[i]);
    }
    shape.head_words = whole_lines(shape.head_words);
    shape.row_words = whole_lines(shape.row_words);
    shape.bytes = whole_pages((shape.head_words + (size_t)METRICS_ROWS * shape.row_words) * WORD_BYTES);
    return shape;
}

static size_t labels_bytes(void)
{
    return whole_pages(sizeof(struct shared_label) * METRIC_LABEL_COUNT * METRICS_LABELS_MAX);
}

size_t metrics_bytes(void)
{
    return labels_bytes() + SCOREBOARD_SLOTS_MAX * work_out_shape().bytes;
}

uint64_t metrics_layout(void)
{
    uint64_t hash = FNV1A_START;

    for (unsigned i = 0; i < METRIC_COUNT; i++) {
        const unsigned facts[] = {families[i].type, families[i].label, columns_of(&families[i])};

        hash = fnv1a(hash, families[i].name, strlen(families[i].name));
        hash = fnv1a(hash, facts, sizeof facts);
    }
    return hash;
}

static char *region(const struct scoreboard *scoreboard)
{
    return (char *)scoreboard + scoreboard->bytes - metrics_bytes();
}

/* The values of a label. */
static struct shared_label *labels_of(const struct scoreboard *scoreboard, enum metric_label label)
{
    return (struct shared_label *)(void *)region(scoreboard) + (size_t)label * METRICS_LABELS_MAX;
}

/* The block of slot 0; the others follow. */
static shared_word *blocks_of(const struct scoreboard *scoreboard)
{
    return (shared_word *)(void *)(region(scoreboard) + labels_bytes());
}

/* --- labels --------------------------------------------------------------------------------------------- */

/* Whoever holds the hash may write the text: it is the same, however many do. */
static void write_label(struct shared_label *label, const char *value, size_t length)
{
    for (size_t i = 0; i < LABEL_WORDS && i * WORD_BYTES < length; i++) {
        size_t left = length - i * WORD_BYTES;
        uint64_t word = 0;

        memcpy(&word, value + i * WORD_BYTES, left < WORD_BYTES ? left : WORD_BYTES);
        atomic_store_explicit(&label->text[i], word, memory_order_relaxed);
    }
    atomic_store_explicit(&label->length, length + 1, memory_order_release);
}

/*
 * The row of a value, claimed by its hash if it is new. A claim is one compare-and-swap, so no process waits for
 * another, and one that dies in between leaves a row that the next to count there completes.
 */
static unsigned find_row(struct shared_label *labels, const char *value)
{
    size_t length = utf8_cut(value, strnlen(value, METRICS_LABEL_MAX_BYTES + 1), METRICS_LABEL_MAX_BYTES);
    uint64_t hash = fnv1a(FNV1A_START, value, length);

    if (length == strlen(OTHER) && memcmp(value, OTHER, length) == 0)
        return ROW_OTHER;
    hash += hash == 0;
    for (unsigned row = 0; row < METRICS_LABELS_MAX; row++) {
        struct shared_label *label = &labels[row];
        uint64_t found = atomic_load_explicit(&label->hash, memory_order_relaxed);

        if (found == 0 && atomic_compare_exchange_strong(&label->hash, &found, hash))
            found = hash;
        if (found != hash)
            continue;
        if (atomic_load_explicit(&label->length, memory_order_relaxed) == 0)
            write_label(label, value, length);
        return row;
    }
    return ROW_OTHER;
}

bool metrics_row(const struct scoreboard *scoreboard, enum metric_label label, unsigned row,
                 char value[static METRICS_LABEL_MAX_BYTES], size_t *length)
{
    const struct shared_label *shared;
    uint64_t stored;

    *length = 0;
    if (label == METRIC_LABEL_NONE)
        return row == 0;
    if (row == ROW_OTHER) {
        *length = strlen(OTHER);
        memcpy(value, OTHER, *length);
        return true;
    }
    shared = labels_of(scoreboard, label) + row;
    stored = atomic_load_explicit(&shared->length, memory_order_acquire);
    if (stored == 0 || stored > METRICS_LABEL_MAX_BYTES + 1)
        return false;
    for (size_t i = 0; i < LABEL_WORDS; i++) {
        uint64_t word = atomic_load_explicit(&shared->text[i], memory_order_relaxed);

        memcpy(value + i * WORD_BYTES, &word, WORD_BYTES);
    }
    *length = stored - 1;
    return true;
}

/* --- counting ------------------------------------------------------------------------------------------- */

/* What this process counts into. */
static struct {
    struct scoreboard *scoreboard; /* NULL: nothing is counted */
    shared_word *block;
    struct block_shape shape;
} own;

void metrics_open(struct scoreboard *scoreboard, int slot)
{
    own.scoreboard = scoreboard;
    if (scoreboard == NULL)
        return;
    own.shape = work_out_shape();
    own.block = blocks_of(scoreboard) + (size_t)slot * (own.shape.bytes / WORD_BYTES);
}

/* Its one writer is this process. */
static void add_to(shared_word *cell, uint64_t n)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

static void mark_used(unsigned row)
{
    shared_word *word = &own.block[row / 64];
    uint64_t bits = atomic_load_explicit(word, memory_order_relaxed);

    if ((bits >> row % 64 & 1) == 0)
        atomic_store_explicit(word, bits | UINT64_C(1) << row % 64, memory_order_relaxed);
}

/* The metric's first cell for this label. */
static shared_word *cells_of(enum metric metric, const char *label)
{
    enum metric_label which = metrics_family(metric)->label;
    unsigned row;

    if (which == METRIC_LABEL_NONE)
        return own.block + own.shape.places[metric];
    row = find_row(labels_of(own.scoreboard, which), label != NULL ? label : "");
    mark_used(row);
    return own.block + own.shape.head_words + (size_t)row * own.shape.row_words + own.shape.places[metric];
}

void metrics_add(enum metric metric, uint64_t n)
{
    if (own.scoreboard != NULL)
        add_to(own.block + own.shape.places[metric], n);
}

void metrics_count(enum metric metric, const char *label, unsigned choice, uint64_t n)
{
    if (own.scoreboard == NULL)
        return;
    if (choice >= columns_of(metrics_family(metric)))
        log_panic("metrics: %s has no choice %u", families[metric].name, choice);
    add_to(cells_of(metric, label) + choice, n);
}

void metrics_observe(enum metric metric, const char *label, int64_t duration_us)
{
    shared_word *cells;
    unsigned bucket = 0;

    if (own.scoreboard == NULL)
        return;
    if (duration_us < 0)
        duration_us = 0;
    while (duration_us > buckets[bucket].below_us)
        bucket++;
    cells = cells_of(metric, label);
    add_to(cells + METRICS_BUCKETS, (uint64_t)duration_us);
    add_to(cells + bucket, 1);
}

static enum metric_outcome outcome_of(enum run_status status)
{
    switch (status) {
    case RUN_STATUS_COMPLETED:
        return METRIC_OUTCOME_OK;
    case RUN_STATUS_ERROR:
        return METRIC_OUTCOME_ERROR;
    case RUN_STATUS_CANCELLED:
        return METRIC_OUTCOME_CANCELLED;
    case RUN_STATUS_RUNNING:
    case RUN_STATUS_COUNT:
    default:
        log_panic("metrics: a run ended with status %d", (int)status);
    }
}

void metrics_run_ended(const struct metrics_run *run)
{
    metrics_count(METRIC_REQUESTS, run->model, outcome_of(run->status), 1);
    metrics_observe(METRIC_REQUEST_DURATION, run->model, run->duration_us);
    if (run->agent_us >= 0)
        metrics_observe(METRIC_AGENT_EXECUTION, run->model, run->agent_us);
    if (run->error_code != NULL && *run->error_code != '\0')
        metrics_count(METRIC_ERRORS, run->error_code, 0, 1);
    if (run->cost_usd > 0 && run->cost_usd < 1e9) /* an agent says it: no nonsense for ever after */
        metrics_count(METRIC_COST, run->model, 0, (uint64_t)(run->cost_usd * 1e6 + 0.5));
}

void metrics_sandbox_call(enum metric_operation operation, int status, const char *word)
{
    char number[16];

    snprintf(number, sizeof number, "%d", status);
    metrics_count(METRIC_SANDBOX_CALLS, status != 0 ? number : word, operation, 1);
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* A page that nobody wrote is not read either: reading would make it. */
static bool is_used(const shared_word *block, unsigned row)
{
    return atomic_load_explicit(&block[row / 64], memory_order_relaxed) >> row % 64 & 1;
}

void metrics_read(const struct scoreboard *scoreboard, enum metric metric, unsigned row,
                  uint64_t totals[static METRICS_COLUMNS_MAX])
{
    const struct metric_family *family = metrics_family(metric);
    struct block_shape shape = work_out_shape();
    const shared_word *block = blocks_of(scoreboard);
    unsigned columns = columns_of(family), slots_end = atomic_load(&scoreboard->slots_end);
    size_t at = shape.places[metric];

    if (family->label != METRIC_LABEL_NONE)
        at += shape.head_words + (size_t)row * shape.row_words;
    memset(totals, 0, METRICS_COLUMNS_MAX * sizeof *totals);
    for (unsigned slot = 0; slot < slots_end; slot++, block += shape.bytes / WORD_BYTES) {
        if (family->label != METRIC_LABEL_NONE && !is_used(block, row))
            continue;
        for (unsigned i = 0; i < columns; i++)
            totals[i] += atomic_load_explicit(&block[at + i], memory_order_relaxed);
    }
}

uint64_t metrics_total(const struct scoreboard *scoreboard, enum metric metric, unsigned choice)
{
    bool has_label = metrics_family(metric)->label != METRIC_LABEL_NONE;
    uint64_t totals[METRICS_COLUMNS_MAX];
    uint64_t sum = 0;

    for (unsigned row = 0; row < (has_label ? METRICS_ROWS : 1u); row++) {
        metrics_read(scoreboard, metric, row, totals);
        sum += totals[choice];
    }
    return sum;
}
