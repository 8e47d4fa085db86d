/*
 * exchange: an HTTP request that is answered later, or over a long time.
 *
 * It stands between evhttp's rules on who frees what and the rest of the program. An exchange ends in one of three
 * ways: released (its owner answers the request at once with reply.h), finished (its stream ended politely), or cut
 * (the connection is closed raw). When the client closes first, gone(arg) is called once and the exchange is no more.
 */
#ifndef SANDBOXD_EXCHANGE_H
#define SANDBOXD_EXCHANGE_H

#include <event2/buffer.h>
#include <event2/http.h>
#include <stdbool.h>

/* A stream's buffered output above which its source must pause. It is resumed when all was written. */
#define EXCHANGE_HIGH_WATER_BYTES (256 * 1024)

struct exchange;

/* Takes the request. The process cannot go on without memory: never NULL. */
struct exchange *exchange_new(struct evhttp_request *http, void (*gone)(void *arg), void *arg)
    __attribute__((returns_nonnull, warn_unused_result));

/* The request, to set headers on; it stays the exchange's. */
struct evhttp_request *exchange_request(const struct exchange *exchange);

/* Gives the request back, to be answered at once. */
struct evhttp_request *exchange_release(struct exchange *exchange) __attribute__((warn_unused_result));

/* Begins a streamed answer; drained(arg) is called each time all output was written. */
void exchange_stream(struct exchange *exchange, int status, void (*drained)(void *arg));
/* Sends some of it, emptying the buffer; false when the source should pause until drained(). */
bool exchange_send(struct exchange *exchange, struct evbuffer *bytes);
/* Ends the streamed answer. */
void exchange_finish(struct exchange *exchange);

/* Breaks the connection without a word, on TCP by a reset: no last chunk. Not from inside a callback of this
 * connection. */
void exchange_cut(struct exchange *exchange);
/* The same as though the client had closed it: gone(arg) is called. */
void exchange_abort(struct exchange *exchange);
/* The same as a cut, but from the loop, for a callback of this connection. The exchange is no more the caller's. */
void exchange_cut_later(struct exchange *exchange);

#endif
