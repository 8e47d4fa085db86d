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

/* The bytes of a character of UTF-8, or 0 when there is none at text. What jansson takes: no surrogates, none longer
 * than it must be. */
static size_t character_bytes(const unsigned char *text, size_t length)
{
    static const struct {
        unsigned char first, last; /* of the first byte */
        unsigned char second_min, second_max;
        size_t bytes;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        if (text[0] < forms[i].first || text[0] > forms[i].last)
            continue;
        if (length < forms[i].bytes ||
            (forms[i].bytes > 1 && (text[1] < forms[i].second_min || text[1] > forms[i].second_max)))
            return 0;
        for (size_t next = 2; next < forms[i].bytes; next++) {
            if ((text[next] & 0xc0) != 0x80)
                return 0;
        }
        return forms[i].bytes;
    }
    return 0;
}

json_t *rpc_text(const char *text, size_t length)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *clean = malloc(length * (sizeof replacement - 1) + 1);
    size_t used = 0;
    json_t *string;

    if (clean == NULL)
        return NULL;
    for (size_t i = 0; i < length;) {
        size_t bytes = character_bytes((const unsigned char *)text + i, length - i);

        memcpy(clean + used, bytes == 0 ? replacement : text + i, bytes == 0 ? sizeof replacement - 1 : bytes);
        used += bytes == 0 ? sizeof replacement - 1 : bytes;
        i += bytes == 0 ? 1 : bytes;
    }
    string = json_stringn_nocheck(clean, used);
    free(clean);
    return string;
}

json_t *rpc_error(enum rpc_code code, const char *message)
{
    return json_pack("{s:s, s:o}", "code", codes[code].name, "message", rpc_text(message, strlen(message)));
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

enum rpc_request_result rpc_next_request(const char *end, const char **next, const char **payload,
                                         size_t *payload_bytes)
{
    const unsigned char *head = (const unsigned char *)*next;
    size_t bytes = (size_t)(end - *next);
    size_t length;

    if (bytes == 0)
        return RPC_REQUEST_NONE;
    if (bytes < RPC_ENVELOPE_HEAD_BYTES || head[0] != 0)
        return RPC_REQUEST_MALFORMED;
    length = (size_t)head[1] << 24 | (size_t)head[2] << 16 | (size_t)head[3] << 8 | head[4];
    if (length > bytes - RPC_ENVELOPE_HEAD_BYTES)
        return RPC_REQUEST_MALFORMED;
    *payload = *next + RPC_ENVELOPE_HEAD_BYTES;
    *payload_bytes = length;
    *next = *payload + length;
    return RPC_REQUEST_OK;
}

enum rpc_request_result rpc_read_request(const char *body, size_t bytes, const char **payload, size_t *payload_bytes)
{
    const char *next = body;
    enum rpc_request_result result = rpc_next_request(body + bytes, &next, payload, payload_bytes);

    return result == RPC_REQUEST_OK && next != body + bytes ? RPC_REQUEST_MALFORMED : result;
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
