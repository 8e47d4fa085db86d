/* api_list: GET /v2/sandboxes with its filters and its paging (spec/e2b.md 0.5). */
#include "sandboxd/api.h"
#include "sandboxd/base64.h"
#include "sandboxd/query.h"
#include "sandboxd/reply.h"

#include "common/log.h"

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
    int place;

    listing->running_total++;
    if (!listing->running || !query_metadata_matches(sandbox->metadata, listing->metadata))
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

/* Reads the filters; answers and returns false when one is wrong. */
static bool read_listing(struct request *request, struct listing *listing)
{
    const char *metadata = request_query(request, "metadata");
    const char *state = request_query(request, "state");
    const char *limit = request_query(request, "limit");
    const char *order = request_query(request, "order");
    const char *token = request_query(request, "nextToken");
    char *end = "";

    *listing = (struct listing){.running = state == NULL || strstr(state, "running") != NULL, .after_us = -1};
    listing->limit = limit == NULL ? LIMIT_MAX : strtol(limit, &end, 10);
    listing->ascending = order != NULL && strcasecmp(order, "asc") == 0;
    listing->metadata = metadata == NULL ? NULL : query_metadata(metadata);
    if (*end != '\0' || listing->limit < 1)
        reply_error(request->http, 400, "validation error: limit must be at least 1");
    else if (metadata != NULL && listing->metadata == NULL)
        reply_error(request->http, 400, "Error parsing metadata");
    else if (token != NULL && !read_cursor(listing, token))
        reply_error(request->http, 400, "Invalid next token");
    else
        return true;
    json_decref(listing->metadata);
    return false;
}

void api_list(struct request *request)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request->http);
    struct listing listing;
    json_t *page;
    char text[CURSOR_MAX_BYTES];
    size_t shown;

    if (!read_listing(request, &listing))
        return;
    sandbox_table_each(request->daemon->sandboxes, visit, &listing);
    if (listing.count > 0)
        qsort(listing.found, listing.count, sizeof *listing.found,
              listing.ascending ? compare_ascending : compare_descending);
    if (listing.limit > LIMIT_MAX)
        listing.limit = LIMIT_MAX;
    shown = listing.count < (size_t)listing.limit ? listing.count : (size_t)listing.limit;
    page = json_array();
    for (size_t i = 0; i < shown; i++)
        json_array_append_new(page, api_listed(request->daemon, listing.found[i]));
    if (shown < listing.count) {
        write_cursor(&listing, listing.found[shown - 1], text);
        evhttp_add_header(headers, "X-Next-Token", text);
    }
    snprintf(text, sizeof text, "%ld", listing.running_total);
    evhttp_add_header(headers, "X-Total-Running", text);
    reply_json(request->http, 200, page);
    json_decref(listing.metadata);
    free(listing.found);
}
