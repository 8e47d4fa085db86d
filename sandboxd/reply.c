#include "sandboxd/reply.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX_BYTES 8192

static void set_header(struct evhttp_request *http, const char *name, const char *value)
{
    evhttp_add_header(evhttp_request_get_output_headers(http), name, value);
}

void reply_empty(struct evhttp_request *http, int status)
{
    evhttp_send_reply(http, status, NULL, NULL);
}

/* Sends the text with a newline after it, as Go's JSON encoder does. */
static void send_text(struct evhttp_request *http, int status, const char *text)
{
    struct evbuffer *body = evbuffer_new();

    if (body != NULL)
        evbuffer_add_printf(body, "%s\n", text);
    evhttp_send_reply(http, status, NULL, body);
    if (body != NULL)
        evbuffer_free(body);
}

/* Serialises and sends; takes the reference. */
static void send_json(struct evhttp_request *http, int status, json_t *body, const char *type)
{
    char *text = json_dumps(body, JSON_COMPACT);

    json_decref(body);
    set_header(http, "Content-Type", type);
    if (text == NULL)
        send_text(http, 500, "{\"code\":500,\"message\":\"out of memory\"}");
    else
        send_text(http, status, text);
    free(text);
}

void reply_json(struct evhttp_request *http, int status, json_t *body)
{
    send_json(http, status, body, "application/json");
}

void reply_json_as_text(struct evhttp_request *http, json_t *body)
{
    send_json(http, 200, body, "text/plain; charset=utf-8");
}

void reply_error(struct evhttp_request *http, int status, const char *format, ...)
{
    char message[MESSAGE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    set_header(http, "X-Content-Type-Options", "nosniff");
    send_json(http, status, json_pack("{s:i, s:s}", "code", status, "message", message),
              "application/json; charset=utf-8");
}

void reply_no_such(struct evhttp_request *http, const char *id)
{
    reply_error(http, 404, "Sandbox \"%s\" doesn't exist or you don't have access to it", id);
}

void reply_no_sandbox(struct evhttp_request *http, const char *id)
{
    send_json(http, 502,
              json_pack("{s:s, s:s, s:i}", "sandboxId", id, "message", "The sandbox was not found", "code", 502),
              "application/json; charset=utf-8");
}

void reply_port_closed(struct evhttp_request *http, const char *id, int port)
{
    send_json(http, 502,
              json_pack("{s:s, s:s, s:i, s:i}", "sandboxId", id, "message",
                        "The sandbox is running but port is not open", "port", port, "code", 502),
              "application/json; charset=utf-8");
}

void reply_rpc_error(struct evhttp_request *http, enum rpc_code code, const char *format, ...)
{
    char message[MESSAGE_MAX_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    send_json(http, rpc_code_status(code), rpc_error(code, message), RPC_UNARY_TYPE);
}

void reply_stream_error(struct evhttp_request *http, enum rpc_code code, const char *format, ...)
{
    char message[MESSAGE_MAX_BYTES];
    struct evbuffer *body = evbuffer_new();
    json_t *error;
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    error = rpc_error(code, message);
    set_header(http, "Content-Type", RPC_STREAM_TYPE);
    if (body != NULL)
        rpc_put_end(body, error);
    evhttp_send_reply(http, 200, NULL, body);
    json_decref(error);
    if (body != NULL)
        evbuffer_free(body);
}
