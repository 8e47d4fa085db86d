/* api_sandboxes: how sandboxes are made and shown by the control API (spec/e2b.md 0.4, 0.5). */
#include "sandboxd/api.h"
#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"
#include "sandboxd/template.h"

#include "common/log.h"

#include <ctype.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_V1_S 15
#define TIMEOUT_DEFAULT_V2_S 300

void api_health(struct request *request)
{
    struct evbuffer *body = evbuffer_new();

    if (body != NULL)
        evbuffer_add_printf(body, "Health check successful");
    evhttp_add_header(evhttp_request_get_output_headers(request->http), "Content-Type", "text/plain; charset=utf-8");
    evhttp_send_reply(request->http, 200, NULL, body);
    if (body != NULL)
        evbuffer_free(body);
}

/* RFC 3339 with microseconds. */
static json_t *json_time(const struct timeval *time)
{
    struct tm utc;
    char date[32];

    gmtime_r(&time->tv_sec, &utc);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    return json_sprintf("%s.%06ldZ", date, (long)time->tv_usec);
}

/* What a sandbox may use: its limit, or the machine's memory. */
static int memory_mib(const struct jail_limits *limits)
{
    if (limits->memory_mib != 0)
        return (int)limits->memory_mib;
    return (int)(sysconf(_SC_PHYS_PAGES) / (1024 * 1024 / sysconf(_SC_PAGESIZE)));
}

json_t *api_listed(const struct daemon *daemon, const struct sandbox *sandbox)
{
    json_t *listed =
        json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:i, s:i, s:i, s:s, s:[]}", "templateID", sandbox->template_name,
                  "alias", sandbox->template_name, "sandboxID", sandbox->id, "clientID", SANDBOX_CLIENT_ID, "startedAt",
                  json_time(&sandbox->started_at), "endAt", json_time(&sandbox->end_at), "envdVersion",
                  SANDBOX_ENVD_VERSION, "cpuCount", (int)sysconf(_SC_NPROCESSORS_ONLN), "memoryMB",
                  memory_mib(daemon->limits), "diskSizeMB", (int)daemon->limits->disk_mib, "state",
                  sandbox->state == SANDBOX_PAUSED ? "paused" : "running", "volumeMounts");

    if (sandbox->metadata != NULL)
        json_object_set(listed, "metadata", sandbox->metadata);
    return listed;
}

/* --- create --------------------------------------------------------------------------------------- */

json_t *api_created(const struct sandbox *sandbox)
{
    json_t *created = json_pack("{s:s, s:s, s:s, s:s, s:s, s:n, s:n}", "templateID", sandbox->template_name,
                                "sandboxID", sandbox->id, "clientID", SANDBOX_CLIENT_ID, "envdVersion",
                                SANDBOX_ENVD_VERSION, "alias", sandbox->template_name, "trafficAccessToken", "domain");

    if (sandbox->token[0] != '\0')
        json_object_set_new(created, "envdAccessToken", json_string(sandbox->token));
    return created;
}

/* A create that waits for its sandbox. */
struct creation {
    struct exchange *exchange; /* NULL: the client left; the sandbox stays, for its id is in the list */
};

static void on_gone(void *arg)
{
    struct creation *creation = arg;

    creation->exchange = NULL;
}

static void on_ready(struct sandbox *sandbox, const char *reason, void *arg)
{
    struct creation *creation = arg;
    struct evhttp_request *http = creation->exchange == NULL ? NULL : exchange_release(creation->exchange);

    free(creation);
    if (sandbox == NULL)
        log_error("sandbox cannot start: %s", reason);
    else
        log_info("sandbox %s runs, template %s", sandbox->id, sandbox->template_name);
    if (http == NULL)
        return;
    if (sandbox != NULL)
        reply_json(http, 201, api_created(sandbox));
    else
        reply_error(http, 500, "Failed to place sandbox: %s", reason);
}

/* Copies a template's name in lower case; false when it could be no folder of ours. */
static bool read_template(const json_t *body, char name[static TEMPLATE_NAME_MAX_BYTES])
{
    const char *given = json_string_value(json_object_get(body, "templateID"));
    size_t i = 0;

    if (given == NULL || *given == '\0' || *given == '.' || strlen(given) >= TEMPLATE_NAME_MAX_BYTES)
        return false;
    for (; given[i] != '\0'; i++) {
        if (!isalnum((unsigned char)given[i]) && strchr("._-", given[i]) == NULL)
            return false;
        name[i] = (char)tolower((unsigned char)given[i]);
    }
    name[i] = '\0';
    return true;
}

/* Reads the fields but the template; answers and returns false when one is wrong. */
static bool read_wish(struct request *request, const json_t *body, struct sandbox_wish *wish)
{
    const json_t *timeout = json_object_get(body, "timeout");
    json_int_t seconds = json_is_integer(timeout) ? json_integer_value(timeout)
                         : request->is_v2         ? TIMEOUT_DEFAULT_V2_S
                                                  : TIMEOUT_DEFAULT_V1_S;
    char error[EGRESS_ERROR_MAX_BYTES];

    wish->metadata = json_object_get(body, "metadata");
    wish->envs = json_object_get(body, "envVars");
    wish->auto_pause = json_is_true(json_object_get(body, "autoPause"));
    wish->auto_resume = json_is_true(json_object_get(json_object_get(body, "autoResume"), "enabled"));
    wish->secure = request->is_v2 || json_is_true(json_object_get(body, "secure"));
    if (json_is_null(wish->metadata))
        wish->metadata = NULL;
    if (json_is_null(wish->envs))
        wish->envs = NULL;
    if (!json_is_string_map(wish->metadata) || !json_is_string_map(wish->envs))
        reply_error(request->http, 400, "validation error: metadata and envVars must be objects of strings");
    else if (!sandbox_wish_network(wish, body, error))
        reply_error(request->http, 400, "validation error: %s", error);
    else if (timeout != NULL && !json_is_integer(timeout) && !json_is_null(timeout))
        reply_error(request->http, 400, "validation error: timeout must be an integer");
    else if (seconds <= 0)
        reply_error(request->http, 400, "Timeout must be greater than 0");
    else if (seconds > SANDBOX_TIMEOUT_MAX_S)
        reply_error(request->http, 400, "Timeout cannot be greater than %d hours", SANDBOX_TIMEOUT_MAX_S / 3600);
    else {
        wish->timeout_s = (int)seconds;
        return true;
    }
    return false;
}

/* Starts the sandbox; the answer comes when it runs. */
static void create(struct request *request, const struct sandbox_wish *wish)
{
    char error[JAIL_ERROR_MAX_BYTES];
    struct creation *creation = memory_new(sizeof *creation);

    if (!sandbox_start(request->daemon->sandboxes, wish, on_ready, creation, error)) {
        log_error("sandbox cannot start: %s", error);
        free(creation);
        reply_error(request->http, 500, "Failed to place sandbox: %s", error);
        return;
    }
    creation->exchange = exchange_new(request->http, on_gone, creation);
}

/* Whether there may be one more; answers and returns false when not. No Retry-After: only a rate limit has one. */
static bool has_room(struct request *request)
{
    unsigned max = request->daemon->max_sandboxes;

    if (sandbox_table_count(request->daemon->sandboxes) < max)
        return true;
    reply_error(request->http, 429,
                "you have reached the maximum number of concurrent E2B sandboxes (%u). If you need more, please visit "
                "'https://e2b.dev/docs/billing'",
                max);
    return false;
}

void api_create(struct request *request)
{
    json_t *body = request_json(request);
    struct sandbox_wish wish = {0};
    char name[TEMPLATE_NAME_MAX_BYTES] = "", folder[PATH_MAX];
    const char *given = json_string_value(json_object_get(body, "templateID"));

    if (body == NULL)
        reply_error(request->http, 400, "Error when parsing request: not a JSON object");
    else if (given == NULL)
        reply_error(request->http, 400, "validation error: templateID is missing");
    else if (!read_template(body, name) || !template_find(request->daemon->template_dir, name, folder))
        reply_error(request->http, 404, "template '%.*s' not found", TEMPLATE_NAME_MAX_BYTES, given);
    else if (read_wish(request, body, &wish) && has_room(request)) {
        wish.template_name = name;
        wish.template_folder = folder[0] == '\0' ? NULL : folder;
        create(request, &wish);
    }
    json_decref(body);
}

/* --- info ---------------------------------------------------------------------------------------- */

void api_get(struct request *request)
{
    json_t *detail = api_listed(request->daemon, request->sandbox);

    if (request->sandbox->token[0] != '\0')
        json_object_set_new(detail, "envdAccessToken", json_string(request->sandbox->token));
    sandbox_describe_network(request->sandbox, detail);
    json_object_set_new(detail, "lifecycle",
                        json_pack("{s:b, s:s}", "autoResume", request->sandbox->auto_resume, "onTimeout",
                                  request->sandbox->auto_pause ? "pause" : "kill"));
    reply_json(request->http, 200, detail);
}
