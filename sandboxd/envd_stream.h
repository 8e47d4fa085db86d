/*
 * envd_stream: the answer of a streaming RPC (spec/e2b.md 0.8): envelopes, keepalives, a deadline, an end.
 *
 * A stream joins three lives: the HTTP exchange, its owner's source of messages, the sandbox. Its owner ends it
 * politely with envd_stream_end(); anything else that ends it (the client left, the sandbox ended, Connect-Timeout-Ms
 * passed) calls closed() once, and the stream is no more.
 */
#ifndef SANDBOXD_ENVD_STREAM_H
#define SANDBOXD_ENVD_STREAM_H

#include "sandboxd/daemon.h"
#include "sandboxd/rpc.h"

struct envd_stream;

struct envd_stream_owner {
    const char *keepalive; /* the message */
    void (*closed)(void *arg);
    void (*drained)(void *arg); /* all that was sent is written: a paused source may go on */
};

/* The request of a streaming RPC. */
struct envd_stream_call {
    json_t *message; /* the caller's reference */
    bool has_deadline;
    uint64_t deadline_ms;
};

/* Reads the request; answers and returns false when it is none. what is for the error, as in "malformed Start request".
 */
bool envd_stream_read(struct request *request, const char *what, struct envd_stream_call *call)
    __attribute__((warn_unused_result));

/* Takes the request. */
struct envd_stream *envd_stream_new(struct request *request, const struct envd_stream_call *call,
                                    const struct envd_stream_owner *owner, void *arg)
    __attribute__((returns_nonnull, warn_unused_result));

/* Sends a message; the keepalive's time starts anew. False when the source should pause until drained(). */
bool envd_stream_send(struct envd_stream *stream, const char *message, size_t bytes);
/* No keepalives from here on. */
void envd_stream_quiet(struct envd_stream *stream);
/* Ends the stream politely; error may be NULL, and is taken. */
void envd_stream_end(struct envd_stream *stream, json_t *error);

/* Keepalive-Ping-Interval in seconds, made harmless; the default for NULL and what is no number. */
int envd_keepalive_seconds(const char *text);

#endif
