/*
 * GET /status: how the instance is, for the dashboard and for people. Programs that watch it read /metrics.
 */
#include "worker/routes.h"
#include "worker/run.h"
#include "worker/status_report.h"

void route_status(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;

    server_reply_json(exchange, 200, status_report(context->host->scoreboard));
}
