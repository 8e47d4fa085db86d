/*
 * tls_stream: TLS between one client's socket and the bufferevent that evhttp reads and writes in the clear.
 *
 * Not libevent's bufferevent_openssl: with evhttp 2.1 that writes and fails inside evbuffer_add(), which frees the
 * connection below its caller's feet (a reset after `Expect: 100-continue`), loses the end of a chunked answer, and
 * makes three records of an event. This one is a bufferevent_filter over the socket's: everything is encrypted from the
 * loop, in records as full as they can be, and nothing calls back before the loop does.
 *
 * What waits in the bufferevent's output is what the socket has not taken yet, to a record of 16 KiB: back-pressure,
 * stall limit and the end of an answer are seen there as without TLS. The socket is closed when the last reference
 * goes, not when evhttp lets go.
 */
#ifndef WORKER_TLS_STREAM_H
#define WORKER_TLS_STREAM_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <openssl/ssl.h>
#include <stdbool.h>

struct tls_stream;

struct tls_stream_handlers {
    /*
     * What comes before TLS: takes its bytes from what was received, and says whether they were all and TLS may begin.
     * Called again with more until then. NULL: nothing does.
     */
    bool (*on_preface)(void *context, struct evbuffer *received);
    /*
     * The handshake failed, and the alert was sent; is_plain: the client spoke no TLS at all, and what is put into the
     * output from now on goes out in the clear. From the loop, once. Nothing is read any more.
     */
    void (*on_failed)(void *context, bool is_plain, const char *reason);
    void *context;
};

/* The bufferevent of a connection still to be accepted. NULL for lack of memory. *stream lives as long as it does. */
struct bufferevent *tls_stream_new(SSL_CTX *tls, struct event_base *base, const struct tls_stream_handlers *handlers,
                                   struct tls_stream **stream) __attribute__((warn_unused_result));

/* Tells the peer that nothing more follows (close_notify), if all was sent and the handshake is done. */
void tls_stream_say_end(struct tls_stream *stream);

/* The owner goes: no handler is called any more. NULL is allowed. */
void tls_stream_release(struct tls_stream *stream);

#endif
