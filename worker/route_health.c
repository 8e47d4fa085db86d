/*
 * GET /health: the worker answers, so it is alive (http-api.md section 11).
 */
#include "worker/routes.h"

void route_health(struct exchange *exchange)
{
    server_reply_json(exchange, 200, json_pack("{s:s, s:s}", "status", "ok", "version", SANDSTORM_VERSION));
}
