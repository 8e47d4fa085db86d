/*
 * GET /openapi.json, /docs, /redoc: the description of this interface, for programs and for people (http-api.md section
 * 12). The page draws the document, so that there is one text to keep.
 */
#include "worker/embedded.h"
#include "worker/page.h"
#include "worker/routes.h"

void route_openapi(struct exchange *exchange)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);

    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    server_reply_static(exchange, "application/json", embedded_openapi_json, embedded_openapi_json_length);
}

void route_docs(struct exchange *exchange)
{
    const struct route_context *context = exchange->context;

    page_reply(context->docs, exchange);
}
