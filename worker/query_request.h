/*
 * query_request: the JSON body of POST /query, checked (http-api.md section 3), or the list of what is wrong with it.
 *
 * Pure. The input is never echoed, but for the names of files.
 */
#ifndef WORKER_QUERY_REQUEST_H
#define WORKER_QUERY_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUERY_PROMPT_MAX_CODE_POINTS 1000000
#define QUERY_FILES_MAX_COUNT        20
#define QUERY_FILES_MAX_BYTES        10000000
#define QUERY_KEY_MAX_BYTES          4096

/* Strings belong to the struct; NULL means absent. */
struct query_request {
    json_t *root; /* the body: what is below points into it, but for the paths */
    const char *prompt;
    size_t prompt_bytes;
    const char *anthropic_api_key;
    const char *e2b_api_key;
    const char *openrouter_api_key;
    const char *model;
    int64_t max_turns; /* 0: absent */
    int64_t timeout_s; /* 0: absent */
    json_t *files;     /* object: normalised path -> content; its own, never NULL */
};

enum query_result {
    QUERY_OK,
    QUERY_BAD_TEXT,   /* 400: not UTF-8, or too deep */
    QUERY_BAD_FIELDS, /* 422 */
    QUERY_NO_MEMORY,
};

/*
 * On QUERY_BAD_FIELDS *errors is the list of http-api.md 3.6, the caller's. The request is to be freed in every case.
 */
enum query_result query_request_parse(const char *body, size_t length, struct query_request *request, json_t **errors)
    __attribute__((warn_unused_result));
void query_request_release(struct query_request *request);

/* One value_error for the whole body: the credentials rule (3.5). NULL for lack of memory. */
json_t *query_value_error(const char *text);

#endif
