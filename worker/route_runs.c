/*
 * GET /runs, GET /runs/{id}, POST /runs/{id}/cancel: the runs of all workers, from whichever one is asked (http-api.md
 * section 10).
 */
#include "worker/field_errors.h"
#include "worker/query_string.h"
#include "worker/routes.h"
#include "worker/run.h"
#include "worker/run_record.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>

#define LIMIT_DEFAULT    50
#define LIMIT_MAX        1000
#define RECORDS_PER_TURN 32 /* of the loop: some hundred microseconds */
#define STATUS_MESSAGE   "Input should be 'running', 'completed', 'error' or 'cancelled'"
#define STATUS_EXPECTED  "'running', 'completed', 'error' or 'cancelled'"
#define UNKNOWN_RUN_TEXT "Unknown run id"

/* --- the list -------------------------------------------------------------------------------------------- */

/* A list that is being written, a few records at a time so that streams are not held up. */
struct run_list_reply {
    struct exchange exchange;
    const struct scoreboard *scoreboard;
    struct event *turn;
    struct evbuffer *body;
    struct run_copy copy;
    unsigned *indices;
    size_t count;
    size_t next;
    bool begun; /* a record stands in the list already */
};

static void list_free(struct run_list_reply *list)
{
    if (list->turn != NULL)
        event_free(list->turn);
    if (list->body != NULL)
        evbuffer_free(list->body);
    run_copy_release(&list->copy);
    free(list->indices);
    free(list);
}

static void on_client_gone(void *context)
{
    struct run_list_reply *list = context;

    event_del(list->turn);
    client_abort(list->exchange.client);
}

static void on_client_closed(void *context)
{
    list_free(context);
}

static void finish(struct run_list_reply *list, bool good)
{
    struct exchange exchange = list->exchange;
    struct evbuffer *body = list->body;

    client_unwatch(exchange.client);
    list->body = NULL;
    list_free(list);
    if (good && evbuffer_add(body, "]", 1) == 0) {
        server_reply_json_text(&exchange, 200, body);
        return;
    }
    evbuffer_free(body);
    server_reply_internal(&exchange, "out of memory");
}

/* One record more. A run that was forgotten meanwhile is left out. */
static bool add_record(struct run_list_reply *list, unsigned index)
{
    enum run_read result = run_table_read(list->scoreboard, index, &list->copy);

    if (result != RUN_READ_OK)
        return result == RUN_READ_GONE;
    if (list->begun && evbuffer_add(list->body, ",", 1) < 0)
        return false;
    list->begun = true;
    return run_record_write(&list->copy, RUN_RECORD_LISTED_PROMPT_BYTES, list->body);
}

static void on_turn(evutil_socket_t fd, short what, void *context)
{
    struct run_list_reply *list = context;

    (void)fd;
    (void)what;
    for (int i = 0; i < RECORDS_PER_TURN && list->next < list->count; i++) {
        if (!add_record(list, list->indices[list->next++])) {
            finish(list, false);
            return;
        }
    }
    if (list->next < list->count)
        event_active(list->turn, 0, 0);
    else
        finish(list, true);
}

/* Takes the indices over. */
static void start_list(struct exchange *exchange, unsigned *indices, size_t count)
{
    const struct route_context *context = exchange->context;
    struct run_list_reply *list = calloc(1, sizeof *list);

    if (list == NULL) {
        free(indices);
        server_reply_internal(exchange, "out of memory");
        return;
    }
    list->exchange = *exchange;
    list->scoreboard = context->host->scoreboard;
    list->indices = indices;
    list->count = count;
    list->body = evbuffer_new();
    list->turn = event_new(context->host->base, -1, 0, on_turn, list);
    if (list->body == NULL || list->turn == NULL || evbuffer_add(list->body, "[", 1) < 0) {
        list_free(list);
        server_reply_internal(exchange, "out of memory");
        return;
    }
    client_watch(exchange->client,
                 &(struct client_watcher){.on_gone = on_client_gone, .on_closed = on_client_closed, .context = list});
    event_active(list->turn, 0, 0);
}

/* --- what is asked for ----------------------------------------------------------------------------------- */

static struct field_place place(const char *parameter)
{
    return (struct field_place){.in = "query", .field = parameter};
}

static void read_limit(struct span query, int64_t *limit, json_t *errors)
{
    size_t length = 0;
    char *word = query_string_get(query, "limit", &length);
    enum coerced result = COERCED;

    *limit = LIMIT_DEFAULT;
    if (word != NULL)
        result = coerce_integer_word(word, length, limit);
    if (result != COERCED)
        field_error_add_integer(errors, place("limit"), result);
    else
        (void)field_error_check_range(errors, place("limit"), *limit, 1, LIMIT_MAX);
    free(word);
}

static void read_status(struct span query, struct run_filter *filter, json_t *errors)
{
    size_t length = 0;
    char *word = query_string_get(query, "status", &length);

    filter->status = -1;
    for (int status = 0; word != NULL && status < RUN_STATUS_COUNT; status++) {
        const char *name = run_status_name((enum run_status)status);

        if (length == strlen(name) && memcmp(word, name, length) == 0)
            filter->status = status;
    }
    if (word != NULL && filter->status < 0)
        field_error_add(errors, place("status"), "literal_error", STATUS_MESSAGE,
                        json_pack("{s:s}", "expected", STATUS_EXPECTED));
    free(word);
}

/* An id that cannot be one is as unknown as any other. */
static void read_before(struct span query, struct run_filter *filter, const struct scoreboard *scoreboard,
                        json_t *errors)
{
    size_t length = 0;
    char *word = query_string_get(query, "before", &length);

    if (word != NULL &&
        (!run_id_parse(word, length, &filter->before) || run_table_find(scoreboard, filter->before) < 0))
        field_error_add_value(errors, place("before"), UNKNOWN_RUN_TEXT, strlen(UNKNOWN_RUN_TEXT));
    free(word);
}

void route_runs(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;
    const struct scoreboard *scoreboard = context->host->scoreboard;
    struct run_filter filter = {.status = -1};
    json_t *errors = json_array();
    unsigned *indices = NULL;
    int64_t limit;
    int count;

    read_limit(exchange->query, &limit, errors);
    read_status(exchange->query, &filter, errors);
    read_before(exchange->query, &filter, scoreboard, errors);
    if (json_array_size(errors) > 0) {
        server_reply_json(exchange, 422, json_pack("{s:o}", "detail", errors));
        return;
    }
    json_decref(errors);
    count = run_table_list(scoreboard, &filter, (size_t)limit, &indices);
    if (count >= -1) /* -1: forgotten since it was looked up; nothing older is known either */
        start_list(exchange, indices, count > 0 ? (size_t)count : 0);
    else
        server_reply_internal(exchange, "out of memory");
}

/* --- one run --------------------------------------------------------------------------------------------- */

void route_run(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;
    const struct scoreboard *scoreboard = context->host->scoreboard;
    struct run_copy copy = {.text = NULL};
    enum run_read result = RUN_READ_GONE;
    struct evbuffer *body = evbuffer_new();
    uint64_t id = 0;
    int index = run_id_parse(exchange->id.bytes, exchange->id.length, &id) ? run_table_find(scoreboard, id) : -1;

    if (index >= 0)
        result = run_table_read(scoreboard, (unsigned)index, &copy);
    if (body == NULL || result == RUN_READ_NO_MEMORY) {
        server_reply_internal(exchange, "out of memory");
    } else if (result == RUN_READ_GONE || copy.record.id != id) {
        server_reply_detail(exchange, 404, UNKNOWN_RUN_TEXT);
    } else if (run_record_write(&copy, RUN_RAW_PROMPT_MAX_BYTES, body)) {
        server_reply_json_text(exchange, 200, body);
        body = NULL;
    } else {
        server_reply_internal(exchange, "out of memory");
    }
    if (body != NULL)
        evbuffer_free(body);
    run_copy_release(&copy);
}

/* --- cancelling ------------------------------------------------------------------------------------------ */

static void reply_cancelling(struct exchange *exchange, uint64_t id)
{
    char text[RUN_ID_DIGITS + 1];

    run_id_format(id, text);
    server_reply_json(exchange, 200, json_pack("{s:s, s:s}", "status", "cancelling", "run_id", text));
}

static void reply_too_late(struct exchange *exchange, enum run_status status)
{
    char text[64];

    snprintf(text, sizeof text, "run status is %s, cannot cancel", run_status_name(status));
    server_reply_error(exchange, 409, text);
}

void route_cancel(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;
    struct run_host *host = context->host;
    enum run_status status = RUN_STATUS_RUNNING;
    enum run_cancel result = RUN_CANCEL_UNKNOWN;
    uint64_t id = 0, owner = 0;

    if (run_id_parse(exchange->id.bytes, exchange->id.length, &id))
        result = run_table_cancel(host->scoreboard, id, &owner, &status);
    switch (result) {
    case RUN_CANCEL_ACCEPTED:
        host->tell_owner(host->context, owner);
        reply_cancelling(exchange, id);
        break;
    case RUN_CANCEL_REPEATED:
        reply_cancelling(exchange, id);
        break;
    case RUN_CANCEL_ENDED:
        reply_too_late(exchange, status);
        break;
    case RUN_CANCEL_UNKNOWN:
    default:
        server_reply_error(exchange, 404, "unknown run_id");
    }
}
