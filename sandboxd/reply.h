/* reply: whole answers, in the shapes of spec/e2b.md. Each takes the request: it must not be touched afterwards. */
#ifndef SANDBOXD_REPLY_H
#define SANDBOXD_REPLY_H

#include "sandboxd/rpc.h"

#include <event2/http.h>
#include <jansson.h>

/* No body. */
void reply_empty(struct evhttp_request *http, int status);
/* Takes the reference. A NULL body is out of memory: 500. */
void reply_json(struct evhttp_request *http, int status, json_t *body);
/* 200 with JSON that is called text, as envd answers an upload. Takes the reference. */
void reply_json_as_text(struct evhttp_request *http, json_t *body);
/* {"code":<status>,"message":…}, as the control API and envd's HTTP half say it. */
void reply_error(struct evhttp_request *http, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The API's 404 for a sandbox that is not there. */
void reply_no_such(struct evhttp_request *http, const char *id);
/* The proxy's 502 for a sandbox that is not there. */
void reply_no_sandbox(struct evhttp_request *http, const char *id);
/* The proxy's 502 for a port nobody listens on. */
void reply_port_closed(struct evhttp_request *http, const char *id, int port);
/* Connect, unary: string code, the status of the code. */
void reply_rpc_error(struct evhttp_request *http, enum rpc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Connect, streaming: 200 and an end of stream that carries the error. */
void reply_stream_error(struct evhttp_request *http, enum rpc_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
