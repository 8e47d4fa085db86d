/*
 * envd_call: a unary RPC that is answered later (spec/e2b.md 0.8).
 *
 * Its owner answers it once, with envd_call_reply() or envd_call_error(). Whatever else ends it (the client left, the
 * sandbox ended, Connect-Timeout-Ms passed) calls closed() once. After either the call is no more.
 */
#ifndef SANDBOXD_ENVD_CALL_H
#define SANDBOXD_ENVD_CALL_H

#include "sandboxd/daemon.h"
#include "sandboxd/rpc.h"

struct envd_call;

/* The message of a unary RPC, the caller's reference. NULL after an error was answered: what is for its text. */
json_t *envd_call_read(struct request *request, const char *what) __attribute__((warn_unused_result));

/* Takes the request. */
struct envd_call *envd_call_new(struct request *request, void (*closed)(void *arg), void *arg)
    __attribute__((returns_nonnull, warn_unused_result));

/* Takes the reference. */
void envd_call_reply(struct envd_call *call, json_t *body);
/* The same with the text of a JSON object, which is emptied. */
void envd_call_reply_text(struct envd_call *call, struct evbuffer *text);
void envd_call_error(struct envd_call *call, enum rpc_code code, const char *message);

#endif
