/*
 * GET /health and GET /ready (http-api.md section 11). Plain health says that the worker answers, so it is alive. Deep
 * health also looks at what runs need; its answer may wait for the sandbox service.
 */
#include "worker/agent_env.h"
#include "worker/field_errors.h"
#include "worker/query_string.h"
#include "worker/routes.h"
#include "worker/run.h"
#include "worker/service_probe.h"

#include <stdlib.h>

/* A deep answer that waits for the sandbox service. */
struct deep_health {
    struct service_waiter waiter; /* first: on_known() gets it */
    struct exchange exchange;
    json_t *checks; /* in the order of the answer; e2b_api is still null */
};

/* False when `deep` is there and no boolean. */
static bool parse_deep(struct span query, bool *deep)
{
    size_t length = 0;
    char *word = query_string_get(query, "deep", &length);
    bool valid = true;

    *deep = false;
    if (word != NULL)
        valid = coerce_bool_word(word, length, deep);
    free(word);
    return valid;
}

bool route_health_is_deep(struct span query)
{
    bool deep;

    return parse_deep(query, &deep) && deep;
}

static void reply_bad_deep(struct exchange *exchange)
{
    json_t *errors = json_array();

    field_error_add_bool(errors, (struct field_place){.in = "query", .field = "deep"}, COERCE_PARSING);
    server_reply_json(exchange, 422, json_pack("{s:o}", "detail", errors));
}

/* --- deep ----------------------------------------------------------------------------------------------- */

static void deep_free(struct deep_health *deep)
{
    service_probe_give_up(&deep->waiter);
    json_decref(deep->checks);
    free(deep);
}

static void on_client_gone(void *context)
{
    struct deep_health *deep = context;

    service_probe_give_up(&deep->waiter);
    client_abort(deep->exchange.client);
}

static void on_client_closed(void *context)
{
    deep_free(context);
}

/* Everything but the sandbox service is known at once. NULL for lack of memory. */
static json_t *look_around(const struct route_context *context)
{
    const struct run_host *host = context->host;
    struct project_view view = project_dir_look(host->project_dir);
    json_t *checks =
        json_pack("{s:b, s:b, s:n, s:b, s:b, s:b, s:i}", "anthropic_api_key",
                  environment_value(view.environment, "ANTHROPIC_API_KEY") != NULL, "e2b_api_key",
                  environment_value(view.environment, "E2B_API_KEY") != NULL, "e2b_api", "provider",
                  agent_env_has_provider(NULL, view.environment), "config", project_dir_is_current(host->project_dir),
                  "state", history_works(host->history), "kill_queue", (int)scoreboard_failed_kills(host->scoreboard));

    project_view_release(&view);
    return checks;
}

static void on_service_known(struct service_waiter *waiter, bool alive)
{
    struct deep_health *deep = (struct deep_health *)waiter;
    struct exchange exchange = deep->exchange;
    json_t *checks = json_incref(deep->checks);
    bool fine =
        alive && json_is_true(json_object_get(checks, "config")) && json_is_true(json_object_get(checks, "state"));

    client_unwatch(exchange.client);
    deep_free(deep);
    json_object_set_new(checks, "e2b_api", json_boolean(alive));
    server_reply_json(&exchange, 200,
                      json_pack("{s:s, s:s, s:o}", "status", fine ? "ok" : "degraded", "version", SANDSTORM_VERSION,
                                "checks", checks));
}

static void answer_deep(struct exchange *exchange)
{
    struct route_context *context = exchange->context;
    struct deep_health *deep = calloc(1, sizeof *deep);
    struct e2b_service *service = route_service(context);

    if (deep == NULL || service == NULL || (deep->checks = look_around(context)) == NULL) {
        free(deep);
        e2b_service_unref(service);
        server_reply_internal(exchange, "out of memory");
        return;
    }
    deep->exchange = *exchange;
    deep->waiter.on_known = on_service_known;
    client_watch(exchange->client,
                 &(struct client_watcher){.on_gone = on_client_gone, .on_closed = on_client_closed, .context = deep});
    service_probe_ask(context->probe, service, &deep->waiter);
    e2b_service_unref(service);
}

/* --- the routes ----------------------------------------------------------------------------------------- */

void route_health(struct exchange *exchange)
{
    bool deep;

    if (!parse_deep(exchange->query, &deep))
        reply_bad_deep(exchange);
    else if (deep)
        answer_deep(exchange);
    else
        server_reply_json(exchange, 200, json_pack("{s:s, s:s}", "status", "ok", "version", SANDSTORM_VERSION));
}

/* Speaks for the instance: a worker that only drains is ready. */
void route_ready(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;
    const struct scoreboard *scoreboard = context->host->scoreboard;
    const char *status = "ready";

    if (context->stopping)
        status = "draining";
    else if (atomic_load(&scoreboard->live_runs) >= scoreboard->sizes.max_runs)
        status = "full";
    server_reply_json(exchange, strcmp(status, "ready") == 0 ? 200 : 503, json_pack("{s:s}", "status", status));
}
