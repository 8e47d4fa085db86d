/* rpc: the Connect protocol's envelopes and error codes (spec/e2b.md 0.8), without a socket. */
#ifndef SANDBOXD_RPC_H
#define SANDBOXD_RPC_H

#include <event2/buffer.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RPC_UNARY_TYPE          "application/json"
#define RPC_STREAM_TYPE         "application/connect+json"
#define RPC_ENVELOPE_HEAD_BYTES 5
#define RPC_FLAG_END            0x02

enum rpc_code {
    RPC_CANCELED,
    RPC_UNKNOWN,
    RPC_INVALID_ARGUMENT,
    RPC_DEADLINE_EXCEEDED,
    RPC_NOT_FOUND,
    RPC_ALREADY_EXISTS,
    RPC_PERMISSION_DENIED,
    RPC_RESOURCE_EXHAUSTED,
    RPC_FAILED_PRECONDITION,
    RPC_UNIMPLEMENTED,
    RPC_INTERNAL,
    RPC_UNAVAILABLE,
    RPC_UNAUTHENTICATED,
};

/* snake_case, as on the wire. */
const char *rpc_code_name(enum rpc_code code);
/* The HTTP status of a unary error. */
int rpc_code_status(enum rpc_code code);

/* A JSON string of any bytes: what is no UTF-8, in names of files and cut messages, becomes U+FFFD. */
json_t *rpc_text(const char *text, size_t length) __attribute__((warn_unused_result));

/* {"code":…,"message":…}; the caller's reference. */
json_t *rpc_error(enum rpc_code code, const char *message) __attribute__((warn_unused_result));

/* Appends an envelope: head and payload in one piece. */
void rpc_put_envelope(struct evbuffer *out, uint8_t flags, const char *payload, size_t bytes);
/* Appends the end of a stream; error may be NULL, and is not taken. */
void rpc_put_end(struct evbuffer *out, const json_t *error);

enum rpc_request_result {
    RPC_REQUEST_OK,
    RPC_REQUEST_NONE,      /* no envelope at all */
    RPC_REQUEST_MALFORMED, /* cut, more than one where one is due, or with flags nobody negotiated */
};

/* Finds the payload of the one envelope of a request. */
enum rpc_request_result rpc_read_request(const char *body, size_t bytes, const char **payload, size_t *payload_bytes)
    __attribute__((warn_unused_result));

/* The same for one of several envelopes: *next is where it begins, and then where the one after it does. */
enum rpc_request_result rpc_next_request(const char *end, const char **next, const char **payload,
                                         size_t *payload_bytes) __attribute__((warn_unused_result));

enum rpc_timeout_result {
    RPC_TIMEOUT_NONE, /* no header: no limit */
    RPC_TIMEOUT_OK,
    RPC_TIMEOUT_INVALID,
};

/* Reads Connect-Timeout-Ms; NULL when the header is absent. */
enum rpc_timeout_result rpc_read_timeout(const char *text, uint64_t *timeout_ms) __attribute__((warn_unused_result));

#endif
