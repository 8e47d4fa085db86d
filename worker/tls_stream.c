#include "worker/tls_stream.h"

#include "worker/tls.h"

#include <event2/buffer.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* What one TLS record holds; also what is encrypted ahead of the socket. */
#define RECORD_MAX_BYTES 16384
/* Written in one turn of the loop: then others have theirs. */
#define TURN_MAX_BYTES (8 * RECORD_MAX_BYTES)
/* A peer that makes us answer without taking the answers (key updates) is cut off here. */
#define WIRE_MAX_BYTES (4 * RECORD_MAX_BYTES)
/* The first byte of a handshake's record; no method begins with it. */
#define HANDSHAKE_BYTE 0x16

enum tls_stream_state {
    TLS_NEW,         /* no byte has come */
    TLS_HANDSHAKING, /* nothing is encrypted yet */
    TLS_OPEN,
    TLS_PLAIN,  /* the peer speaks no TLS: we answer as it asks, and read no more */
    TLS_FAILED, /* nothing is read or written any more */
};

struct tls_stream {
    enum tls_stream_state state;
    SSL *ssl;
    struct bufferevent *clear; /* the filter: what evhttp knows */
    struct bufferevent *socket;
    struct evbuffer *wire; /* encrypted, not yet given to the socket */
    struct event *pump;    /* encrypts what waits in the output; NULL: released */
    size_t in_flight;      /* bytes at the head of the output whose record waits in the socket's own output */
    bool trigger;          /* the write callback is owed */
    struct tls_stream_handlers handlers;
};

/* --- OpenSSL reads and writes evbuffers ---------------------------------------------------------------- */

static int bio_write(BIO *bio, const char *bytes, int length)
{
    struct tls_stream *stream = BIO_get_data(bio);

    BIO_clear_retry_flags(bio);
    return evbuffer_add(stream->wire, bytes, (size_t)length) == 0 ? length : -1;
}

static int bio_read(BIO *bio, char *out, int size)
{
    struct tls_stream *stream = BIO_get_data(bio);
    int taken = evbuffer_remove(bufferevent_get_input(stream->socket), out, (size_t)size);

    BIO_clear_retry_flags(bio);
    if (taken > 0)
        return taken;
    BIO_set_retry_read(bio);
    return -1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

/* Made once for the process, by its first connection. */
static const BIO_METHOD *bio_method(void)
{
    static BIO_METHOD *method;

    if (method != NULL)
        return method;
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "evbuffer");
    if (method != NULL) {
        BIO_meth_set_write(method, bio_write);
        BIO_meth_set_read(method, bio_read);
        BIO_meth_set_ctrl(method, bio_control);
    }
    return method;
}

static bool attach_bio(struct tls_stream *stream)
{
    const BIO_METHOD *method = bio_method();
    BIO *bio = method != NULL ? BIO_new(method) : NULL;

    if (bio == NULL)
        return false;
    BIO_set_data(bio, stream);
    BIO_set_init(bio, 1);
    SSL_set_bio(stream->ssl, bio, bio);
    return true;
}

/* --- writing ------------------------------------------------------------------------------------------- */

/* Gives the wire to the kernel, and what that does not take to the socket's output. True: the kernel has it all. */
static bool send_wire(struct tls_stream *stream)
{
    struct evbuffer *waiting = bufferevent_get_output(stream->socket);

    if (evbuffer_get_length(waiting) == 0)
        evbuffer_write(stream->wire, bufferevent_getfd(stream->socket)); /* the socket's own write meets the error */
    if (evbuffer_get_length(stream->wire) > 0)
        evbuffer_add_buffer(waiting, stream->wire);
    return evbuffer_get_length(waiting) == 0;
}

/* Makes a record of the first bytes of the output; how many, 0: it failed. */
static size_t seal(struct tls_stream *stream, struct evbuffer *output)
{
    char bytes[RECORD_MAX_BYTES];
    ev_ssize_t length = evbuffer_copyout(output, bytes, sizeof bytes);

    if (length <= 0)
        return 0;
    if (stream->state == TLS_PLAIN)
        return evbuffer_add(stream->wire, bytes, (size_t)length) == 0 ? (size_t)length : 0;
    ERR_clear_error();
    return SSL_write(stream->ssl, bytes, (int)length) == (int)length ? (size_t)length : 0;
}

/* Nothing goes on here: both sides of the server see the end of the connection. */
static void cut(struct tls_stream *stream)
{
    stream->state = TLS_FAILED;
    shutdown(bufferevent_getfd(stream->socket), SHUT_RDWR);
}

static bool can_write(const struct tls_stream *stream)
{
    return (stream->state == TLS_OPEN || stream->state == TLS_PLAIN) && stream->in_flight == 0;
}

/* The only place that encrypts, from the loop. */
static void on_pump(evutil_socket_t fd, short what, void *context)
{
    struct tls_stream *stream = context;
    struct evbuffer *output = bufferevent_get_output(stream->clear);
    size_t written = 0, length;

    (void)fd;
    (void)what;
    while (can_write(stream) && evbuffer_get_length(output) > 0 && written < TURN_MAX_BYTES) {
        length = seal(stream, output);
        if (length == 0) {
            cut(stream);
        } else if (send_wire(stream)) {
            written += length;
            stream->trigger = true;
            evbuffer_drain(output, length);
        } else {
            stream->in_flight = length;
        }
    }
    if (stream->pump != NULL && written >= TURN_MAX_BYTES)
        event_active(stream->pump, 0, 0);
    if (!stream->trigger || stream->in_flight > 0 || evbuffer_get_length(output) > 0)
        return;
    stream->trigger = false;
    bufferevent_trigger(stream->clear, EV_WRITE, 0); /* may free the connection */
}

static void arm(struct tls_stream *stream)
{
    if (stream->pump != NULL)
        event_active(stream->pump, 0, 0);
}

static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context)
{
    (void)output;
    if (info->n_added > 0)
        arm(context);
}

/* The socket's output has left: so have the bytes that were in flight. */
static void on_socket_output(struct evbuffer *waiting, const struct evbuffer_cb_info *info, void *context)
{
    struct tls_stream *stream = context;
    size_t length = stream->in_flight;

    if (info->n_deleted == 0 || evbuffer_get_length(waiting) > 0 || length == 0)
        return;
    stream->in_flight = 0;
    stream->trigger = true;
    evbuffer_drain(bufferevent_get_output(stream->clear), length);
    arm(stream);
}

/* The filter's own way of writing is not used: it would encrypt inside evbuffer_add(). */
static enum bufferevent_filter_result filter_output(struct evbuffer *source, struct evbuffer *target, ev_ssize_t limit,
                                                    enum bufferevent_flush_mode mode, void *context)
{
    (void)source;
    (void)target;
    (void)limit;
    (void)mode;
    (void)context;
    return BEV_NEED_MORE;
}

/* --- reading ------------------------------------------------------------------------------------------- */

static void fail(struct tls_stream *stream, enum tls_stream_state state, const char *reason)
{
    stream->state = state;
    if (stream->pump != NULL)
        stream->handlers.on_failed(stream->handlers.context, state == TLS_PLAIN, reason);
}

static void end_of_reading(struct tls_stream *stream, int error)
{
    const char *reason = tls_reason();

    if (error == SSL_ERROR_WANT_READ)
        return;
    if (error == SSL_ERROR_ZERO_RETURN) /* close_notify: as a FIN, for evhttp and for EV_CLOSED */
        shutdown(bufferevent_getfd(stream->socket), SHUT_RD);
    else if (stream->state == TLS_HANDSHAKING)
        fail(stream, TLS_FAILED, *reason != '\0' ? reason : "protocol error");
    else
        cut(stream);
}

/* Decrypts what has come; true when there was something for evhttp. */
static bool open_records(struct tls_stream *stream, struct evbuffer *target)
{
    char bytes[RECORD_MAX_BYTES];
    bool any = false;
    int length;

    ERR_clear_error();
    while ((length = SSL_read(stream->ssl, bytes, sizeof bytes)) > 0) {
        evbuffer_add(target, bytes, (size_t)length);
        any = true;
    }
    length = SSL_get_error(stream->ssl, length);
    send_wire(stream);
    if (stream->state == TLS_HANDSHAKING && SSL_is_init_finished(stream->ssl)) {
        stream->state = TLS_OPEN;
        arm(stream);
    }
    if (evbuffer_get_length(bufferevent_get_output(stream->socket)) > WIRE_MAX_BYTES)
        cut(stream);
    else
        end_of_reading(stream, length);
    return any;
}

/* Is something still to come before TLS? */
static bool has_preface(struct tls_stream *stream, struct evbuffer *source)
{
    if (stream->pump == NULL || stream->handlers.on_preface == NULL)
        return false;
    if (!stream->handlers.on_preface(stream->handlers.context, source))
        return true;
    stream->handlers.on_preface = NULL;
    return false;
}

/* Speaks the peer TLS? */
static void greet(struct tls_stream *stream, struct evbuffer *source)
{
    unsigned char first = 0;

    evbuffer_copyout(source, &first, 1);
    stream->state = TLS_HANDSHAKING;
    if (first != HANDSHAKE_BYTE)
        fail(stream, TLS_PLAIN, "no TLS");
}

static enum bufferevent_filter_result filter_input(struct evbuffer *source, struct evbuffer *target, ev_ssize_t limit,
                                                   enum bufferevent_flush_mode mode, void *context)
{
    struct tls_stream *stream = context;

    (void)limit;
    (void)mode;
    if (stream->state == TLS_NEW && has_preface(stream, source))
        return BEV_NEED_MORE;
    if (stream->state == TLS_NEW && evbuffer_get_length(source) > 0)
        greet(stream, source);
    if (stream->state == TLS_HANDSHAKING || stream->state == TLS_OPEN)
        return open_records(stream, target) ? BEV_OK : BEV_NEED_MORE;
    evbuffer_drain(source, evbuffer_get_length(source));
    return BEV_NEED_MORE;
}

/* --- life ---------------------------------------------------------------------------------------------- */

/* The filter is gone. The socket's bufferevent, which it still holds, goes after it. */
static void stream_free(void *context)
{
    struct tls_stream *stream = context;

    tls_stream_release(stream);
    if (stream->clear != NULL)
        evbuffer_remove_cb(bufferevent_get_output(stream->socket), on_socket_output, stream);
    SSL_free(stream->ssl);
    if (stream->wire != NULL)
        evbuffer_free(stream->wire);
    free(stream);
}

struct bufferevent *tls_stream_new(SSL_CTX *tls, struct event_base *base, const struct tls_stream_handlers *handlers,
                                   struct tls_stream **out)
{
    struct tls_stream *stream = calloc(1, sizeof *stream);

    if (stream == NULL)
        return NULL;
    stream->handlers = *handlers;
    stream->ssl = SSL_new(tls);
    stream->wire = evbuffer_new();
    stream->pump = event_new(base, -1, 0, on_pump, stream);
    stream->socket = bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (stream->ssl != NULL && stream->wire != NULL && stream->pump != NULL && stream->socket != NULL &&
        attach_bio(stream))
        stream->clear = bufferevent_filter_new(stream->socket, filter_input, filter_output, BEV_OPT_CLOSE_ON_FREE,
                                               stream_free, stream);
    if (stream->clear == NULL) {
        if (stream->socket != NULL)
            bufferevent_free(stream->socket);
        stream_free(stream);
        return NULL;
    }
    SSL_set_accept_state(stream->ssl);
    if (evbuffer_add_cb(bufferevent_get_output(stream->clear), on_output, stream) == NULL ||
        evbuffer_add_cb(bufferevent_get_output(stream->socket), on_socket_output, stream) == NULL) {
        bufferevent_free(stream->clear);
        return NULL;
    }
    *out = stream;
    return stream->clear;
}

void tls_stream_say_end(struct tls_stream *stream)
{
    if (stream->state != TLS_OPEN || stream->in_flight > 0 || SSL_get_shutdown(stream->ssl) != 0 ||
        evbuffer_get_length(bufferevent_get_output(stream->clear)) > 0)
        return;
    ERR_clear_error();
    SSL_shutdown(stream->ssl);
    send_wire(stream);
}

void tls_stream_release(struct tls_stream *stream)
{
    if (stream == NULL || stream->pump == NULL)
        return;
    event_free(stream->pump);
    stream->pump = NULL;
}
