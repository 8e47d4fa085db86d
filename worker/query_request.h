/*
 * query_request: the JSON body of POST /query, checked (http-api.md section 3), or the list of what is wrong with it.
 *
 * Pure: knows neither configuration nor environment. The input is never echoed, but for names (field_errors.h).
 * Cost: the body is scanned twice and each string that is kept is copied once.
 */
#ifndef WORKER_QUERY_REQUEST_H
#define WORKER_QUERY_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUERY_PROMPT_MAX_CODE_POINTS 1000000
#define QUERY_KEY_MAX_BYTES          4096

enum query_flag {
    QUERY_FLAG_ABSENT,
    QUERY_FLAG_FALSE,
    QUERY_FLAG_TRUE,
};

/* All of it belongs to the struct; NULL means absent. Strings are jansson's because they may hold NUL. */
struct query_request {
    json_t *prompt;
    char *anthropic_api_key;
    char *e2b_api_key;
    char *openrouter_api_key;
    json_t *model;
    int64_t max_turns;           /* 0: absent */
    json_t *output_format;       /* string: the JSON text of an object */
    int64_t timeout_s;           /* 0: absent */
    json_t *files;               /* object: normalised path -> content; never NULL */
    json_t *allowed_mcp_servers; /* object whose keys are the names, as all that are looked up by name */
    json_t *allowed_skills;
    json_t *allowed_tools; /* array of strings */
    json_t *allowed_agents;
    json_t *resume;
    enum query_flag fork_session;
    double max_budget_usd; /* below 0: absent */
    json_t *team_id;
    json_t *user_id;
    json_t *channel_id;
    json_t *remember;     /* not empty: the caller wants what we do not do */
    json_t *extra_agents; /* object: name -> string, the JSON text of an object */
    json_t *extra_skills; /* object: name -> text of its SKILL.md */
};

enum query_result {
    QUERY_OK,
    QUERY_BAD_TEXT,   /* 400: not UTF-8, or too deep */
    QUERY_BAD_FIELDS, /* 422 */
    QUERY_NO_MEMORY,
};

/*
 * On QUERY_BAD_FIELDS *errors is the list of http-api.md 3.6, the caller's. The request is to be released in every
 * case.
 */
enum query_result query_request_parse(const char *body, size_t length, struct query_request *request, json_t **errors)
    __attribute__((warn_unused_result));
void query_request_release(struct query_request *request);

/* One value_error for the whole body: the credentials rule (3.5). */
json_t *query_value_error(const char *text);

#endif
