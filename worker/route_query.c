/*
 * POST /query: a prompt in, an agent's messages out. The order of checks is that of http-api.md 2.6.
 */
#include "common/metrics.h"
#include "worker/agent_env.h"
#include "worker/routes.h"
#include "worker/run.h"

#define NO_PROVIDER_TEXT                                                                                               \
    "anthropic_api_key is required — pass it in the request body or set ANTHROPIC_API_KEY in the environment"
#define NO_SANDBOX_TEXT "e2b_api_key is required — pass it in the request body or set E2B_API_KEY in the environment"

static void reply_errors(struct exchange *exchange, json_t *errors)
{
    server_reply_json(exchange, 422, json_pack("{s:o}", "detail", errors));
}

static const char *e2b_key(const struct run_order *order)
{
    return order->request.e2b_api_key != NULL ? order->request.e2b_api_key
                                              : environment_value(order->view.environment, "E2B_API_KEY");
}

/* Where a sandbox is to be: the setting, else sandstorm.json, else where a key fits. */
static enum runtime_choice choose_runtime(const struct run_host *host, const char *key)
{
    enum runtime_choice runtime = (enum runtime_choice)host->settings->runtime;

    if (runtime == RUNTIME_AUTO)
        runtime = project_dir_runtime(host->project_dir);
    if (runtime != RUNTIME_AUTO)
        return runtime;
    return key != NULL ? RUNTIME_E2B : RUNTIME_LOCAL;
}

struct e2b_service *route_service(const struct route_context *context)
{
    struct project_view view = project_dir_look(context->host->project_dir);
    const char *key = environment_value(view.environment, "E2B_API_KEY");
    enum runtime_choice runtime = choose_runtime(context->host, key);
    struct e2b_service *service;

    if (runtime == RUNTIME_LOCAL && context->local_socket != NULL)
        service = e2b_service_local(context->local_socket);
    else
        service = e2b_service_cloud(context->environment, key != NULL ? key : "");
    project_view_release(&view);
    return service;
}

const char *route_choose_service(const struct route_context *context, struct run_order *order)
{
    enum runtime_choice runtime = choose_runtime(context->host, e2b_key(order));

    if (!agent_env_has_provider(&order->request, order->view.environment))
        return NO_PROVIDER_TEXT;
    if (runtime == RUNTIME_E2B ? e2b_key(order) == NULL : context->local_socket == NULL)
        return NO_SANDBOX_TEXT;
    order->service = runtime == RUNTIME_E2B ? e2b_service_cloud(context->environment, e2b_key(order))
                                            : e2b_service_local(context->local_socket);
    return NULL;
}

bool route_takes_runs(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;

    if (!context->stopping)
        return true;
    metrics_count(METRIC_ADMISSION_REJECTED, NULL, METRIC_REJECTED_STOPPING, 1);
    server_reply_retry(exchange, "Server is shutting down");
    return false;
}

bool route_admit_run(struct run_host *host)
{
    if (scoreboard_admit_run(host->scoreboard, host->slot))
        return true;
    metrics_count(METRIC_ADMISSION_REJECTED, NULL, METRIC_REJECTED_MAX_RUNS, 1);
    return false;
}

/* Takes the order over. */
static void admit(struct exchange *exchange, struct run_order *order)
{
    struct route_context *context = exchange->context;
    struct run_host *host = context->host;
    const char *missing = route_choose_service(context, order);

    if (missing != NULL) {
        reply_errors(exchange, query_value_error(missing));
    } else if (order->service == NULL) {
        server_reply_internal(exchange, "out of memory");
    } else if (!route_admit_run(host)) {
        server_reply_retry(exchange, ROUTE_FULL_TEXT);
    } else {
        run_start(host, exchange, order);
        return;
    }
    run_order_release(order);
}

void route_query(struct exchange *exchange)
{
    struct route_context *context = exchange->context;
    struct run_order order = {0};
    json_t *errors = NULL;

    if (!route_takes_runs(exchange))
        return;
    if (context->host->telemetry != NULL)
        trace_context_read(&order.caller, evhttp_request_get_input_headers(exchange->request));
    switch (query_request_parse(exchange->body, exchange->body_length, &order.request, &errors)) {
    case QUERY_OK:
        order.view = project_dir_look(context->host->project_dir);
        admit(exchange, &order);
        return;
    case QUERY_BAD_TEXT:
        server_reply_detail(exchange, 400, "There was an error parsing the body");
        break;
    case QUERY_BAD_FIELDS:
        reply_errors(exchange, errors);
        break;
    case QUERY_NO_MEMORY:
    default:
        server_reply_internal(exchange, "out of memory");
        break;
    }
    query_request_release(&order.request);
}
