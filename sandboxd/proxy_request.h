/*
 * proxy_request: what a program in a sandbox asks the proxy for: an HTTP CONNECT, a plain HTTP request in absolute form
 * (RFC 9112 3.2.2), or a SOCKS 5 CONNECT (RFC 1928), which are told apart by their first bytes.
 *
 * Pure: bytes in, a target and what to send there out. Nothing here opens a socket.
 */
#ifndef SANDBOXD_PROXY_REQUEST_H
#define SANDBOXD_PROXY_REQUEST_H

#include "sandboxd/endpoint.h"

#include <event2/buffer.h>

/* The longest head of a request. */
#define PROXY_HEAD_MAX_BYTES (32 * 1024)

enum proxy_form {
    PROXY_NONE,    /* no proxy: a listener that stands for one endpoint */
    PROXY_CONNECT, /* a tunnel through HTTP */
    PROXY_FORWARD, /* one plain HTTP request */
    PROXY_SOCKS,   /* a tunnel through SOCKS 5 */
};

enum proxy_head_result {
    PROXY_HEAD_OK,
    PROXY_HEAD_INCOMPLETE,
    PROXY_HEAD_BAD,      /* not a request to a proxy, or not one that can be passed on safely */
    PROXY_HEAD_GREETING, /* SOCKS: the methods; the answer is PROXY_SOCKS_GREETING */
    PROXY_HEAD_GREETING_BAD,
};

/* No authentication. */
#define PROXY_SOCKS_GREETING     "\x05\x00"
#define PROXY_SOCKS_GREETING_BAD "\x05\xff"

/* How much of what follows the head of a plain request belongs to it. */
struct proxy_body {
    enum {
        PROXY_BODY_ENDED,
        PROXY_BODY_LENGTH,  /* so many bytes are still to come */
        PROXY_BODY_SIZE,    /* chunked: in the line of a chunk's size */
        PROXY_BODY_CHUNK,   /* chunked: in its bytes and the line end behind them */
        PROXY_BODY_TRAILER, /* chunked: in the lines after the last one */
        PROXY_BODY_BAD,
    } state;
    uint64_t bytes;       /* still to come of the length or chunk; the size read so far */
    unsigned line_length; /* of the line, without its end */
    bool in_extension;    /* behind the digits of a size */
};

struct proxy_request {
    enum proxy_form form;
    struct endpoint target;
    size_t head_bytes;      /* what the head, or the greeting, took of the bytes; what follows is not part of it */
    struct proxy_body body; /* of PROXY_FORWARD */
};

/* Reads the head from the first length bytes of a connection. is_greeted: a SOCKS greeting was answered. */
enum proxy_head_result proxy_request_parse(const char *bytes, size_t length, bool is_greeted,
                                           struct proxy_request *request) __attribute__((warn_unused_result));

/*
 * Writes the head of a PROXY_FORWARD as the origin gets it: in origin form, with the target's Host, without what is
 * meant for a proxy, and with Connection: close, so that the answer's end is the connection's. False for lack of
 * memory.
 */
bool proxy_request_rewrite(const struct proxy_request *request, const char *head, struct evbuffer *out)
    __attribute__((warn_unused_result));

/* How many of the bytes belong to the body; moves on behind them. Stops at the end and at what breaks the framing. */
size_t proxy_body_take(struct proxy_body *body, const char *bytes, size_t length);

#endif
