/*
 * POST /query: a prompt in, an agent's messages out. The order of checks is that of http-api.md 2.6.
 */
#include "worker/routes.h"
#include "worker/run.h"

#include <stdlib.h>

#define NO_PROVIDER_TEXT                                                                                               \
    "anthropic_api_key is required — pass it in the request body or set ANTHROPIC_API_KEY in the environment"
#define NO_SANDBOX_TEXT "e2b_api_key is required — pass it in the request body or set E2B_API_KEY in the environment"

static void reply_errors(struct exchange *exchange, json_t *errors)
{
    server_reply_json(exchange, 422, json_pack("{s:o}", "detail", errors));
}

static const char *e2b_key(const struct query_request *request)
{
    const char *key = request->e2b_api_key != NULL ? request->e2b_api_key : getenv("E2B_API_KEY");

    return key != NULL && *key != '\0' ? key : NULL;
}

/* The credentials rule (3.5). The service this run uses goes to *service, NULL there is lack of memory; or an error. */
static const char *choose_service(const struct route_context *context, const struct query_request *request,
                                  struct e2b_service **service)
{
    enum runtime_choice runtime = (enum runtime_choice)context->host->settings->runtime;
    const char *key = e2b_key(request);

    if (!agent_config_has_provider(request))
        return NO_PROVIDER_TEXT;
    if (runtime == RUNTIME_AUTO)
        runtime = key != NULL ? RUNTIME_E2B : RUNTIME_LOCAL;
    if (runtime == RUNTIME_E2B ? key == NULL : context->local_socket == NULL)
        return NO_SANDBOX_TEXT;
    *service = runtime == RUNTIME_E2B ? e2b_service_cloud(context->environment, key)
                                      : e2b_service_local(context->local_socket);
    return NULL;
}

/* Takes the request over. */
static void admit(struct exchange *exchange, struct query_request *request)
{
    struct route_context *context = exchange->context;
    struct run_host *host = context->host;
    struct e2b_service *service = NULL;
    const char *missing = choose_service(context, request, &service);

    if (missing != NULL) {
        reply_errors(exchange, query_value_error(missing));
    } else if (service == NULL) {
        server_reply_internal(exchange, "out of memory");
    } else if (!scoreboard_admit_run(host->scoreboard, host->slot)) {
        server_reply_retry(exchange, "Too many concurrent runs");
    } else {
        run_start(host, exchange, request, service);
        return;
    }
    e2b_service_unref(service);
    query_request_release(request);
}

void route_query(struct exchange *exchange)
{
    struct route_context *context = exchange->context;
    struct query_request request;
    json_t *errors = NULL;

    if (context->stopping) {
        server_reply_retry(exchange, "Server is shutting down");
        return;
    }
    switch (query_request_parse(exchange->body, exchange->body_length, &request, &errors)) {
    case QUERY_OK:
        admit(exchange, &request);
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
    query_request_release(&request);
}
