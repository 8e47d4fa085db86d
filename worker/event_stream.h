/*
 * event_stream: Server-Sent Events to one client (http-api.md section 5): framing, ping, back-pressure, stall limit.
 *
 * Nothing is ever dropped: when output_buffer or more waits for the client, event_stream_full() says so, and on_drained
 * tells when less than half of it is left. The producer has to stop in between. Where memory is lacking for a part of
 * an event the connection is cut, as for a client that is gone.
 */
#ifndef WORKER_EVENT_STREAM_H
#define WORKER_EVENT_STREAM_H

#include "worker/server.h"

struct event_stream;

struct event_stream_handlers {
    void (*on_drained)(void *context);
    /* The client closed, was reset, or took nothing for client_stall_timeout; or an event could not be made. From the
     * loop. The stream frees itself afterwards. */
    void (*on_gone)(void *context, const char *reason);
    void *context;
};

/*
 * Sends the 200 and its headers at once; the body of the exchange is gone. NULL for lack of memory: the request is then
 * answered with 500.
 */
struct event_stream *event_stream_open(struct exchange *exchange, const char *run_id,
                                       const struct event_stream_handlers *handlers)
    __attribute__((warn_unused_result));

/* One event from one line of the sandbox, without its line end; each CR begins a data line (5.2). Not on the wire
 * before the next flush. */
void event_stream_put_line(struct event_stream *stream, const char *line, size_t length);
/* One event made by the server. */
void event_stream_put_json(struct event_stream *stream, json_t *event /* taken over */);

/* Where the payload of an event comes from that is too large to be built first. */
enum event_source_result {
    EVENT_SOURCE_MORE,
    EVENT_SOURCE_END,    /* this was the last piece */
    EVENT_SOURCE_BROKEN, /* it cannot be finished: the connection is cut, since an event is whole or not there */
};

struct event_source {
    /* Appends the next piece, at most some 64 KiB, without CR and LF. */
    enum event_source_result (*next)(void *state, struct evbuffer *out);
    void (*free)(void *state);
    void *state;
};

/*
 * One event whose payload is made as the client takes it; the source is the stream's from now on. What is put after it
 * comes after it, and event_stream_end() may be called at once.
 */
void event_stream_put_source(struct event_stream *stream, const struct event_source *source);
void event_stream_flush(struct event_stream *stream);
bool event_stream_full(struct event_stream *stream);

/* The final chunk, after all that was put; handlers are not called any more, and the stream frees itself when
 * everything is flushed. */
void event_stream_end(struct event_stream *stream);
/* Cuts the connection without a final chunk; handlers are not called any more. */
void event_stream_abort(struct event_stream *stream);

#endif
