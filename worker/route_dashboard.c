/*
 * GET /: the runs of this instance, for people (http-api.md section 12). The page itself holds nothing private; what it
 * shows comes from /status and /runs, which ask for the bearer.
 */
#include "worker/page.h"
#include "worker/routes.h"

void route_dashboard(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;

    page_reply(context->dashboard, exchange);
}
