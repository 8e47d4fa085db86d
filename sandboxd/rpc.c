#include "sandboxd/rpc.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Most digits of a Connect-Timeout-Ms. */
#define TIMEOUT_DIGITS_MAX 10

static const struct {
    const char *name;
    int status;
} codes[] = {
    [RPC_CANCELED] = {"canceled", 499},
    [RPC_UNKNOWN] = {"unknown", 500},
    [RPC_INVALID_ARGUMENT] = {"invalid_argument", 400},
    [RPC_DEADLINE_EXCEEDED] = {"deadline_exceeded", 504},
    [RPC_NOT_FOUND] = {"not_found", 404},
    [RPC_ALREADY_EXISTS] = {"already_exists", 409},
    [RPC_PERMISSION_DENIED] = {"permission_denied", 403},
    [RPC_RESOURCE_EXHAUSTED] = {"resource_exhausted", 429},
    [RPC_FAILED_PRECONDITION] = {"failed_precondition", 400},
    [RPC_UNIMPLEMENTED] = {"unimplemented", 501},
    [RPC_INTERNAL] = {"internal", 500},
    [RPC_UNAVAILABLE] = {"unavailable", 503},
    [RPC_UNAUTHENTICATED] = {"unauthenticated", 401},
};

const char *rpc_code_name(enum rpc_code code)
{
    return codes[code].name;
}

int rpc_code_status(enum rpc_code code)
{
    return codes[code].status;
}

json_t *rpc_error(enum rpc_code code, const char *message)
{
    return json_pack("{s:s, s:s}", "code", codes[code].name, "message", message);
}

void rpc_put_envelope(struct evbuffer *out, uint8_t flags, const char *payload, size_t bytes)
{
    const unsigned char head[RPC_ENVELOPE_HEAD_BYTES] = {flags, (unsigned char)(bytes >> 24),
                                                         (unsigned char)(bytes >> 16), (unsigned char)(bytes >> 8),
                                                         (unsigned char)bytes};

    evbuffer_expand(out, sizeof head + bytes);
    evbuffer_add(out, head, sizeof head);
    evbuffer_add(out, payload, bytes);
}

void rpc_put_end(struct evbuffer *out, const json_t *error)
{
    json_t *end = error == NULL ? json_object() : json_pack("{s:O}", "error", error);
    char *text = json_dumps(end, JSON_COMPACT);

    if (text != NULL)
        rpc_put_envelope(out, RPC_FLAG_END, text, strlen(text));
    free(text);
    json_decref(end);
}

enum rpc_request_result rpc_read_request(const char *body, size_t bytes, const char **payload, size_t *payload_bytes)
{
    const unsigned char *head = (const unsigned char *)body;
    size_t length;

    if (bytes == 0)
        return RPC_REQUEST_NONE;
    if (bytes < RPC_ENVELOPE_HEAD_BYTES || head[0] != 0)
        return RPC_REQUEST_MALFORMED;
    length = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
    if (length != bytes - RPC_ENVELOPE_HEAD_BYTES)
        return RPC_REQUEST_MALFORMED;
    *payload = body + RPC_ENVELOPE_HEAD_BYTES;
    *payload_bytes = length;
    return RPC_REQUEST_OK;
}

enum rpc_timeout_result rpc_read_timeout(const char *text, uint64_t *timeout_ms)
{
    size_t digits = 0;

    if (text == NULL)
        return RPC_TIMEOUT_NONE;
    *timeout_ms = 0;
    for (; digits <= TIMEOUT_DIGITS_MAX && isdigit((unsigned char)text[digits]); digits++)
        *timeout_ms = *timeout_ms * 10 + (uint64_t)(text[digits] - '0');
    return digits == 0 || digits > TIMEOUT_DIGITS_MAX || text[digits] != '\0' ? RPC_TIMEOUT_INVALID : RPC_TIMEOUT_OK;
}
