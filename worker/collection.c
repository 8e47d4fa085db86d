#include "worker/collection.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "worker/agent_config.h"
#include "worker/agent_stream.h"
#include "worker/byte_space.h"
#include "worker/timer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILES_MAX_COUNT    10
#define FILES_MAX_BYTES    (50LL << 20)
#define LISTING_MAX_BYTES  (256u << 10)
#define LISTING_TIMEOUT_MS 10000

/* One line of the listing. */
struct entry {
    char *path;
    int64_t size;
};

struct collection {
    struct e2b_context e2b;
    const struct e2b_sandbox *sandbox;
    const struct input_files *inputs;
    struct collection_limits limits;
    struct collection_handlers handlers;
    struct agent_stream *listing;
    struct e2b_call *reading;
    struct spool *spool;    /* of the file that is being read */
    int spool_errno;        /* why it takes no more; 0: it does */
    int64_t ends_ms;        /* of the whole */
    struct event *timer;    /* of the listing, then of the whole */
    struct event *deferred; /* the next step, from the loop */
    char *text;             /* of the listing */
    size_t text_length;
    size_t text_capacity;
    struct entry entries[FILES_MAX_COUNT + 1];
    size_t entry_count;
    size_t next;
    int64_t total_bytes;
    bool incomplete;
};

void collection_cancel(struct collection *collection)
{
    if (collection == NULL)
        return;
    agent_stream_cancel(collection->listing);
    e2b_call_cancel(collection->reading);
    spool_free(collection->spool);
    if (collection->timer != NULL)
        event_free(collection->timer);
    if (collection->deferred != NULL)
        event_free(collection->deferred);
    for (size_t i = 0; i < collection->entry_count; i++)
        free(collection->entries[i].path);
    free(collection->text);
    free(collection);
}

static void done(struct collection *collection)
{
    struct collection_handlers handlers = collection->handlers;
    bool incomplete = collection->incomplete;

    collection_cancel(collection);
    handlers.on_done(handlers.context, incomplete);
}

/* --- reading ---------------------------------------------------------------------------------------- */

/* The file is left out; why is the operator's to know. */
static void leave_out(struct collection *collection, const char *reason)
{
    log_info_limited("sandbox %s: a file is not returned: %s", collection->sandbox->id, reason);
    collection->incomplete = true;
    spool_free(collection->spool);
    collection->spool = NULL;
}

static void hand_over(struct collection *collection, const char *path)
{
    struct spool *spool = collection->spool;

    collection->spool = NULL;
    collection->total_bytes += (int64_t)spool_length(spool);
    if (input_files_is(collection->inputs, path, spool))
        spool_free(spool);
    else
        collection->handlers.on_file(collection->handlers.context, path, spool);
}

static void on_read(void *context, const struct e2b_result *result)
{
    struct collection *collection = context;
    const struct entry *entry = &collection->entries[collection->next++];

    collection->reading = NULL;
    if (result->error == RUN_ERROR_NONE && collection->spool_errno == 0) {
        hand_over(collection, entry->path);
    } else {
        leave_out(collection, result->error != RUN_ERROR_NONE ? result->message : strerror(collection->spool_errno));
        if (result->error == RUN_ERROR_SANDBOX_LOST)
            collection->next = collection->entry_count;
    }
    event_active(collection->deferred, 0, 0);
}

/* Inside libcurl. */
static void on_read_bytes(void *context, const char *bytes, size_t length)
{
    struct collection *collection = context;

    if (collection->spool_errno != 0 || spool_add(collection->spool, bytes, length))
        return;
    collection->spool_errno = errno;
    event_active(collection->deferred, 0, 0);
}

/* A spool for the next file, or for the same one again. */
static void begin_spool(struct collection *collection)
{
    const struct entry *entry = &collection->entries[collection->next];

    spool_free(collection->spool);
    collection->spool = spool_new(input_files_may_be(collection->inputs, entry->path, (size_t)entry->size));
    collection->spool_errno = collection->spool != NULL ? 0 : ENOMEM;
}

static void on_read_again(void *context)
{
    begin_spool(context);
}

static struct e2b_call *start_reading(struct collection *collection, const struct entry *entry)
{
    int64_t left = FILES_MAX_BYTES - collection->total_bytes;
    struct e2b_read_request request = {
        .limit_bytes = (size_t)(collection->limits.file_bytes < left ? collection->limits.file_bytes : left),
        .on_bytes = on_read_bytes,
        .on_again = on_read_again,
        .on_read = on_read,
        .context = collection,
    };
    struct e2b_call *call;
    char *path;

    if (asprintf(&path, "%s/%s", AGENT_HOME, entry->path) < 0)
        return NULL;
    request.path = path;
    call = e2b_read(&collection->e2b, collection->sandbox, &request);
    free(path);
    return call;
}

static void read_next(struct collection *collection)
{
    const struct entry *entry = &collection->entries[collection->next];

    if (collection->next >= collection->entry_count) {
        done(collection);
        return;
    }
    if (collection->next >= FILES_MAX_COUNT || entry->size > FILES_MAX_BYTES - collection->total_bytes) {
        collection->incomplete = true;
        done(collection);
        return;
    }
    begin_spool(collection);
    collection->reading = start_reading(collection, entry);
    if (collection->reading == NULL) {
        collection->incomplete = true;
        done(collection);
    }
}

/* The next file, also after one whose spool is full: what is left of it need not be read. */
static void on_deferred(evutil_socket_t fd, short what, void *context)
{
    struct collection *collection = context;

    (void)fd;
    (void)what;
    if (collection->reading != NULL) {
        e2b_call_cancel(collection->reading);
        collection->reading = NULL;
        collection->next++;
        leave_out(collection, strerror(collection->spool_errno));
    }
    read_next(collection);
}

/* --- listing ---------------------------------------------------------------------------------------- */

/* "path TAB size"; the size is what follows the last TAB. Entries that do not parse are skipped. */
static void add_entry(struct collection *collection, const char *text, size_t length)
{
    const char *tab = memrchr(text, '\t', length);
    struct entry *entry = &collection->entries[collection->entry_count];
    char *end;

    if (tab == NULL || tab == text || collection->entry_count > FILES_MAX_COUNT)
        return;
    entry->size = strtoll(tab + 1, &end, 10);
    if (end != text + length || end == tab + 1 || entry->size < 0)
        return;
    entry->path = strndup(text, (size_t)(tab - text));
    if (entry->path != NULL)
        collection->entry_count++;
    else
        collection->incomplete = true;
}

/* Entries end with NUL; a listing without any is split on LF instead. */
static void parse_listing(struct collection *collection)
{
    const char *text = collection->text;
    size_t length = collection->text_length;
    int separator = length > 0 && memchr(text, '\0', length) != NULL ? '\0' : '\n';

    while (length > 0) {
        const char *end = memchr(text, separator, length);
        size_t piece = end != NULL ? (size_t)(end - text) : length;
        size_t step = end != NULL ? piece + 1 : piece;

        if (end != NULL) /* an entry that was cut off is none */
            add_entry(collection, text, piece);
        text += step;
        length -= step;
    }
}

static void on_listing_start(void *context, int64_t pid)
{
    (void)context;
    (void)pid;
}

static void on_listing_output(void *context, bool is_stderr, const char *bytes, size_t length)
{
    struct collection *collection = context;
    size_t wanted = collection->text_length + length;

    if (is_stderr || collection->incomplete) /* what follows a piece without room is not read as if it followed */
        return;
    if (wanted > LISTING_MAX_BYTES || !byte_space_reserve(&collection->text, &collection->text_capacity, wanted)) {
        collection->incomplete = true;
        return;
    }
    memcpy(collection->text + collection->text_length, bytes, length);
    collection->text_length = wanted;
}

static void on_listing_exit(void *context, int exit_code, const char *status)
{
    struct collection *collection = context;

    if (exit_code != 0)
        log_info_limited("sandbox %s: listing of files: %s", collection->sandbox->id, status);
    agent_stream_cancel(collection->listing);
    collection->listing = NULL;
    parse_listing(collection);
    timer_start(collection->timer, collection->ends_ms - monotonic_ms());
    read_next(collection);
}

static void on_listing_lost(void *context, enum run_error error, const char *message)
{
    struct collection *collection = context;

    log_info_limited("sandbox %s: listing of files failed: %s: %s", collection->sandbox->id, run_error_code(error),
                     message);
    done(collection);
}

/* Too late: the listing gives no files, later ones are left out. */
static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct collection *collection = context;

    (void)fd;
    (void)what;
    log_info_limited("sandbox %s: collecting files took too long", collection->sandbox->id);
    collection->incomplete = collection->listing == NULL;
    done(collection);
}

/* The command of http-api.md 6.10: newer than the configuration, nothing hidden, sorted, one more than we return. */
static bool start_listing(struct collection *collection)
{
    struct agent_stream_request request = {
        .start_timeout_ms = LISTING_TIMEOUT_MS,
        .idle_timeout_ms = LISTING_TIMEOUT_MS,
        .counted_as = METRIC_OPERATION_FIND,
        .handlers = {.on_start = on_listing_start,
                     .on_output = on_listing_output,
                     .on_exit = on_listing_exit,
                     .on_lost = on_listing_lost,
                     .context = collection},
    };
    char *command;

    if (asprintf(&command,
                 "find %s -mindepth 1 -name '.*' -prune -o -type f -cnewer %s -size -%lldc -printf '%%P\\t%%s\\0' | "
                 "LC_ALL=C sort -z | head -z -n %d",
                 AGENT_HOME, AGENT_CONFIG_PATH, (long long)collection->limits.file_bytes + 1, FILES_MAX_COUNT + 1) < 0)
        return false;
    request.command = command;
    collection->listing = agent_stream_open(&collection->e2b, collection->sandbox, &request);
    free(command);
    return collection->listing != NULL;
}

struct collection *collection_start(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                    const struct collection_limits *limits, const struct input_files *inputs,
                                    const struct collection_handlers *handlers)
{
    struct collection *collection = calloc(1, sizeof *collection);

    if (collection == NULL)
        return NULL;
    collection->e2b = *e2b;
    collection->sandbox = sandbox;
    collection->limits = *limits;
    collection->inputs = inputs;
    collection->ends_ms = monotonic_ms() + limits->total_timeout_ms;
    collection->handlers = *handlers;
    collection->timer = evtimer_new(e2b->base, on_timer, collection);
    collection->deferred = event_new(e2b->base, -1, 0, on_deferred, collection);
    if (collection->timer == NULL || collection->deferred == NULL || !start_listing(collection)) {
        collection_cancel(collection);
        return NULL;
    }
    timer_start(collection->timer,
                limits->total_timeout_ms < LISTING_TIMEOUT_MS ? limits->total_timeout_ms : LISTING_TIMEOUT_MS);
    return collection;
}
