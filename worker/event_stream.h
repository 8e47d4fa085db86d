/*
 * event_stream: Server-Sent Events to one client (http-api.md section 5): framing, ping, back-pressure, stall limit.
 *
 * Nothing is ever dropped: when output_buffer or more waits for the client, event_stream_full() says so, and on_drained
 * tells when less than half of it is left. The producer has to stop in between.
 */
#ifndef WORKER_EVENT_STREAM_H
#define WORKER_EVENT_STREAM_H

#include "worker/server.h"

struct event_stream;

struct event_stream_handlers {
    void (*on_drained)(void *context);
    /* The client closed, was reset, or took nothing for client_stall_timeout. The stream frees itself afterwards. */
    void (*on_gone)(void *context, const char *reason);
    void *context;
};

/* Sends the 200 and its headers at once. NULL for lack of memory: the request is then answered with 500. */
struct event_stream *event_stream_open(struct exchange *exchange, const char *run_id,
                                       const struct event_stream_handlers *handlers)
    __attribute__((warn_unused_result));

/* One event from one line of the sandbox, verbatim but for CRs (5.2). Not on the wire before the next flush. */
void event_stream_put_line(struct event_stream *stream, const char *line, size_t length);
/* One event made by the server. */
void event_stream_put_json(struct event_stream *stream, json_t *event /* taken over */);
/*
 * One event in pieces, for those too large to be built first: begin, add…, finish, without anything else in between.
 * The pieces hold no CR and no LF.
 */
void event_stream_begin(struct event_stream *stream);
void event_stream_add(struct event_stream *stream, const char *bytes, size_t length);
void event_stream_finish(struct event_stream *stream);
void event_stream_flush(struct event_stream *stream);
bool event_stream_full(const struct event_stream *stream);

/* The final chunk; handlers are not called any more, and the stream frees itself when everything is flushed. */
void event_stream_end(struct event_stream *stream);
/* Cuts the connection without a final chunk; handlers are not called any more. */
void event_stream_abort(struct event_stream *stream);

#endif
