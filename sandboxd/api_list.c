/*
 * api_list: GET /v2/sandboxes with its filters and its paging (spec/e2b.md 0.5), and the deprecated GET /sandboxes,
 * which shows all that run on one page.
 */
#include "common/base64.h"
#include "sandboxd/api.h"
#include "sandboxd/query.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define LIMIT_MAX        100
#define CURSOR_MAX_BYTES 128

/* What is asked for, and what was found. */
struct listing {
    json_t *metadata; /* or NULL: any */
    bool ascending;
    bool running;
    bool paused;
    const char *template_name;  /* or NULL: any */
    long long started_after_us; /* inclusive; -1: any */
    long limit;
    long long after_us; /* cursor: the start of the last one shown; -1: none */
    char after_id[SANDBOX_ID_BYTES + 1];
    size_t count;
    const struct sandbox **found;
    long running_total;
};

static long long started_us(const struct sandbox *sandbox)
{
    return (long long)sandbox->started_at.tv_sec * 1000000 + sandbox->started_at.tv_usec;
}

/* Order by start, then by id, so that a cursor names one place. */
static int compare(long long started, const char *id, const struct sandbox *other)
{
    long long theirs = started_us(other);

    if (started != theirs)
        return started < theirs ? -1 : 1;
    return strcmp(id, other->id);
}

static int compare_ascending(const void *a, const void *b)
{
    const struct sandbox *const *one = a, *const *other = b;

    return compare(started_us(*one), (*one)->id, *other);
}

static int compare_descending(const void *a, const void *b)
{
    return compare_ascending(b, a);
}

/* Keeps a sandbox that fits. */
static void visit(struct sandbox *sandbox, void *arg)
{
    struct listing *listing = arg;
    bool is_paused = sandbox->state == SANDBOX_PAUSED;
    int place;

    listing->running_total += !is_paused;
    if (!(is_paused ? listing->paused : listing->running) || started_us(sandbox) < listing->started_after_us ||
        (listing->template_name != NULL && strcasecmp(listing->template_name, sandbox->template_name) != 0) ||
        !query_metadata_matches(sandbox->metadata, listing->metadata))
        return;
    place = compare(listing->after_us, listing->after_id, sandbox);
    if (listing->after_us >= 0 && (listing->ascending ? place >= 0 : place <= 0))
        return;
    listing->found = reallocarray(listing->found, listing->count + 1, sizeof *listing->found);
    if (listing->found == NULL)
        log_panic("out of memory");
    listing->found[listing->count++] = sandbox;
}

/* Writes the cursor after a sandbox. */
static void write_cursor(const struct listing *listing, const struct sandbox *last, char out[static CURSOR_MAX_BYTES])
{
    char text[CURSOR_MAX_BYTES / 2];
    int length =
        snprintf(text, sizeof text, "%lld__%s%s", started_us(last), last->id, listing->ascending ? "__asc" : "");

    base64_encode(text, (size_t)length, out);
    out[BASE64_ENCODED_BYTES((size_t)length)] = '\0';
    for (char *c = out; *c != '\0'; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c;
}

/* Reads a cursor; false when it is none, or of the other order. */
static bool read_cursor(struct listing *listing, const char *token)
{
    char text[CURSOR_MAX_BYTES];
    size_t length;
    int end = 0;

    if (strlen(token) >= CURSOR_MAX_BYTES || !base64_decode_lenient(token, strlen(token), text, &length))
        return false;
    text[length] = '\0';
    if (sscanf(text, "%lld__%21[a-z0-9]%n", &listing->after_us, listing->after_id, &end) != 2 || listing->after_us < 0)
        return false;
    return strcmp(text + end, listing->ascending ? "__asc" : "") == 0;
}

/* Reads the states that are asked for, joined by commas; false when one is none. */
static bool read_states(struct listing *listing, const char *text)
{
    size_t length;

    do {
        length = strcspn(text, ",");
        if (length == strlen("running") && strncmp(text, "running", length) == 0)
            listing->running = true;
        else if (length == strlen("paused") && strncmp(text, "paused", length) == 0)
            listing->paused = true;
        else
            return false;
        text += length;
    } while (*text++ == ',');
    return true;
}

/* Reads the order; false when it is none. */
static bool read_order(struct listing *listing, const char *text)
{
    listing->ascending = strcmp(text, "asc") == 0;
    return listing->ascending || strcmp(text, "desc") == 0;
}

/* Reads the filters that GET /sandboxes has too; answers and returns false when one is wrong. */
static bool read_filters(struct request *request, struct listing *listing)
{
    const char *metadata = request_query(request, "metadata");

    *listing = (struct listing){.after_us = -1, .started_after_us = -1, .limit = LONG_MAX};
    listing->metadata = metadata == NULL ? NULL : query_metadata(metadata);
    if (metadata == NULL || listing->metadata != NULL)
        return true;
    reply_error(request->http, 400, "Error parsing metadata");
    return false;
}

/* Reads the rest; answers and returns false when something is wrong. */
static bool read_page(struct request *request, struct listing *listing)
{
    const char *state = request_query(request, "state");
    const char *limit = request_query(request, "limit");
    const char *order = request_query(request, "order");
    const char *started_after = request_query(request, "startedAfter");
    const char *token = request_query(request, "nextToken");
    char *end = "";

    listing->running = listing->paused = state == NULL;
    listing->limit = limit == NULL ? LIMIT_MAX : strtol(limit, &end, 10);
    listing->template_name = request_query(request, "template");
    if (*end != '\0' || listing->limit < 1 || listing->limit > LIMIT_MAX)
        reply_error(request->http, 400, "validation error: limit must be a number from 1 to %d", LIMIT_MAX);
    else if (state != NULL && !read_states(listing, state))
        reply_error(request->http, 400, "validation error: state must be running, paused or both");
    else if (order != NULL && !read_order(listing, order))
        reply_error(request->http, 400, "validation error: order must be asc or desc");
    else if (started_after != NULL && !query_time(started_after, &listing->started_after_us))
        reply_error(request->http, 400, "validation error: startedAfter must be an RFC 3339 time");
    else if (token != NULL && !read_cursor(listing, token))
        reply_error(request->http, 400, "Invalid next token");
    else
        return true;
    return false;
}

/* Answers with the first of what was found. */
static void reply_page(struct request *request, const struct listing *listing)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request->http);
    size_t shown = listing->count < (size_t)listing->limit ? listing->count : (size_t)listing->limit;
    json_t *page = json_array();
    char text[CURSOR_MAX_BYTES];

    for (size_t i = 0; i < shown; i++)
        json_array_append_new(page, api_listed(request->daemon, listing->found[i]));
    if (shown < listing->count) {
        write_cursor(listing, listing->found[shown - 1], text);
        evhttp_add_header(headers, "X-Next-Token", text);
    }
    snprintf(text, sizeof text, "%ld", listing->running_total);
    evhttp_add_header(headers, "X-Total-Running", text);
    reply_json(request->http, 200, page);
}

void api_list(struct request *request)
{
    struct listing listing;
    bool good = read_filters(request, &listing);

    if (good && request->is_v2)
        good = read_page(request, &listing);
    else
        listing.running = true;
    if (good) {
        sandbox_table_each(request->daemon->sandboxes, visit, &listing);
        if (listing.count > 0)
            qsort(listing.found, listing.count, sizeof *listing.found,
                  listing.ascending ? compare_ascending : compare_descending);
        reply_page(request, &listing);
    }
    json_decref(listing.metadata);
    free(listing.found);
}
