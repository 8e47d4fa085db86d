#include "worker/routes.h"

#include "worker/utf8.h"

#include <stdlib.h>

static bool is_stopping(const void *context)
{
    return ((const struct route_context *)context)->stopping;
}

/* Slack is out of scope (http-api.md section 12); its users get a reason. */
static void route_slack(struct exchange *exchange)
{
    server_reply_error(exchange, 503, "SLACK_BOT_TOKEN not configured");
}

static const struct route fixed[] = {
    {.method = EVHTTP_REQ_POST, .path = "/query", .handler = route_query, .guarded = true, .is_stopping = is_stopping},
    {.method = EVHTTP_REQ_GET, .path = "/runs", .handler = route_runs, .guarded = true},
    {.method = EVHTTP_REQ_GET, .path = "/runs/{id}", .handler = route_run, .guarded = true},
    {.method = EVHTTP_REQ_POST, .path = "/runs/{id}/cancel", .handler = route_cancel, .guarded = true},
    {.method = EVHTTP_REQ_GET,
     .path = "/health",
     .handler = route_health,
     .guarded_by_query = route_health_is_deep,
     .keep_alive = true},
    {.method = EVHTTP_REQ_GET, .path = "/ready", .handler = route_ready, .keep_alive = true},
    {.method = EVHTTP_REQ_GET, .path = "/metrics", .handler = route_metrics, .guarded = true},
    /* Not in http-api.md 2.1: for the dashboard, and for people. */
    {.method = EVHTTP_REQ_GET, .path = "/status", .handler = route_status, .guarded = true},
    {.method = EVHTTP_REQ_GET, .path = "/", .handler = route_dashboard},
    {.method = EVHTTP_REQ_GET, .path = "/openapi.json", .handler = route_openapi},
    {.method = EVHTTP_REQ_GET, .path = "/docs", .handler = route_docs},
    {.method = EVHTTP_REQ_GET, .path = "/redoc", .handler = route_docs},
    {.method = EVHTTP_REQ_POST, .path = "/webhooks/e2b", .handler = route_webhook},
    {.method = EVHTTP_REQ_POST, .path = "/slack/events", .handler = route_slack},
};

bool route_read_json(const struct exchange *exchange, struct json_text *root)
{
    struct json_text_fault fault;

    return exchange->body_length > 0 && utf8_is_valid(exchange->body, exchange->body_length) &&
           json_text_check(exchange->body, exchange->body_length, root, &fault) == JSON_TEXT_OK;
}

#define FIXED_COUNT (sizeof fixed / sizeof *fixed)

struct route *routes_make(const struct trigger_set *triggers)
{
    struct route *routes = calloc(FIXED_COUNT + triggers->count + 1, sizeof *routes);
    struct route *next = routes;

    if (routes == NULL)
        return NULL;
    memcpy(routes, fixed, sizeof fixed);
    next += FIXED_COUNT;
    for (size_t i = 0; i < triggers->count; i++) {
        const struct trigger *trigger = &triggers->triggers[i];

        if (trigger->type == TRIGGER_WEBHOOK)
            *next++ =
                (struct route){.method = EVHTTP_REQ_POST,
                               .path = trigger->path,
                               .handler = route_trigger,
                               .secret = {json_string_value(trigger->secret), json_string_length(trigger->secret)},
                               .is_stopping = is_stopping,
                               .data = trigger};
    }
    return routes;
}
