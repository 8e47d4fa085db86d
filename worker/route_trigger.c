/*
 * POST to the path of a trigger: what the request brings becomes a prompt, and its run goes on without it (http-api.md
 * section 14). Its secret was looked at before its body was read (reception.c).
 */
#include "worker/routes.h"
#include "worker/trigger_prompt.h"
#include "worker/utf8.h"

#define TEAM_ID "__trigger__"

/* --- the run ---------------------------------------------------------------------------------------------- */

/* As a request of POST /query that says nothing but the prompt, without structured output. False for lack of memory. */
static bool fill_request(struct query_request *request, const struct trigger *trigger, json_t *prompt)
{
    *request = (struct query_request){.prompt = prompt,
                                      .output_format = json_string("{}"),
                                      .files = json_object(),
                                      .max_budget_usd = -1,
                                      .team_id = json_string(TEAM_ID),
                                      .user_id = json_string(trigger->name)};
    return request->output_format != NULL && request->files != NULL && request->team_id != NULL &&
           request->user_id != NULL;
}

/* Takes the order over. */
static enum trigger_firing admit(const struct route_context *context, const struct trigger *trigger,
                                 struct run_order *order, uint64_t *run_id)
{
    struct run_host *host = context->host;
    const char *missing = route_choose_service(context, order);

    if (missing != NULL) /* the run's record says so; it asks nobody */
        order->service = e2b_service_cloud(context->environment, "");
    if (order->service == NULL) {
        run_order_release(order);
        return TRIGGER_NO_MEMORY;
    }
    if (!route_admit_run(host)) {
        run_order_release(order);
        return TRIGGER_FULL;
    }
    return run_start_detached(host, order, trigger->name, missing, run_id) ? TRIGGER_FIRED : TRIGGER_NO_MEMORY;
}

enum trigger_firing route_fire(const struct route_context *context, const struct trigger *trigger, json_t *prompt,
                               const struct evkeyvalq *headers, uint64_t *run_id)
{
    struct run_order order = {.service = NULL};

    if (!fill_request(&order.request, trigger, prompt)) {
        query_request_release(&order.request);
        return TRIGGER_NO_MEMORY;
    }
    if (headers != NULL && context->host->telemetry != NULL)
        trace_context_read(&order.caller, headers);
    order.view = project_dir_look(context->host->project_dir);
    return admit(context, trigger, &order, run_id);
}

/* --- the request ------------------------------------------------------------------------------------------ */

static void reply_accepted(struct exchange *exchange, const struct trigger *trigger, uint64_t run_id)
{
    char id[RUN_ID_DIGITS + 1];

    run_id_format(run_id, id);
    evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "X-Sandstorm-Run-Id", id);
    server_reply_json(exchange, 202, json_pack("{s:s, s:s}", "status", "accepted", "trigger", trigger->name));
}

/* Takes the prompt over. */
static void fire(struct exchange *exchange, const struct trigger *trigger, json_t *prompt)
{
    uint64_t run_id;

    switch (
        route_fire(exchange->context, trigger, prompt, evhttp_request_get_input_headers(exchange->request), &run_id)) {
    case TRIGGER_FIRED:
        reply_accepted(exchange, trigger, run_id);
        break;
    case TRIGGER_FULL:
        server_reply_retry(exchange, ROUTE_FULL_TEXT);
        break;
    case TRIGGER_NO_MEMORY:
    default:
        server_reply_internal(exchange, "out of memory");
    }
}

void route_trigger(struct exchange *exchange)
{
    const struct trigger *trigger = exchange->data;
    struct trigger_sources sources = {.headers = evhttp_request_get_input_headers(exchange->request)};
    json_t *prompt;

    if (!route_takes_runs(exchange))
        return;
    if (!route_read_json(exchange, &sources.body)) {
        server_reply_error(exchange, 400, "invalid JSON body");
        return;
    }
    prompt = trigger_prompt_render(trigger->prompt, &sources);
    if (prompt == NULL) {
        server_reply_internal(exchange, "out of memory");
    } else if (json_string_length(prompt) > TRIGGER_PROMPT_STOP_BYTES ||
               utf8_count_code_points(json_string_value(prompt), json_string_length(prompt)) >
                   QUERY_PROMPT_MAX_CODE_POINTS) {
        json_decref(prompt);
        server_reply_error(exchange, 413, "prompt too long");
    } else {
        fire(exchange, trigger, prompt);
    }
}
