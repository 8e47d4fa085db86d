#include "worker/client.h"

#include "common/log.h"
#include "common/log_limit.h"
#include "worker/proxy_header.h"
#include "worker/timer.h"

#include <event2/buffer.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* After the request evhttp reads on without limit: at most this much is kept until it is noticed (libs.md). */
#define SERVING_READ_MAX_BYTES 4096
/* A refused client gets this long to take its answer, while what it still sends is thrown away. */
#define LINGER_MS 2000

/* True once evhttp has freed its side: bufferevent_free() clears the callbacks, our reference keeps the rest. */
static bool freed_by_evhttp(const struct client *client)
{
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;

    bufferevent_getcb(client->bufferevent, &read_cb, &write_cb, &event_cb, NULL);
    return event_cb == NULL;
}

/* --- refusing ---------------------------------------------------------------------------------------- */

/* The request has ended: it gets its line in the access log. */
static void end_access(struct client *client, bool complete)
{
    struct access_entry *entry = client->access;

    client->access = NULL;
    access_end(entry, complete);
}

/* Who asks, once that is known as well as it ever will be. */
static void note_client(struct client *client)
{
    if (client->access != NULL)
        access_client(client->access, reception_client(&client->admission, client_peer(client)));
}

/* An answer of our own is in the output: it goes out, then the connection ends. evhttp is to know nothing of it. */
static void end_with_answer(struct client *client, int status)
{
    struct bufferevent *bufferevent = client->bufferevent;
    bufferevent_data_cb read_cb, write_cb;
    bufferevent_event_cb event_cb;
    void *context;

    client->state = CLIENT_REFUSED;
    note_client(client);
    access_status(client->access, status);
    access_answered(client->access);
    bufferevent_getcb(bufferevent, &read_cb, &write_cb, &event_cb, &context);
    bufferevent_setcb(bufferevent, read_cb, NULL, event_cb, context);
    bufferevent_enable(bufferevent, EV_WRITE);
    timer_start(client->timer, LINGER_MS);
}

static void refuse(struct client *client, int status)
{
    reception_refuse(&client->admission, status, client_peer(client), bufferevent_get_output(client->bufferevent));
    end_with_answer(client, status);
}

/* The answer has left: no more will come from us. The client's end, or LINGER_MS, ends the connection. */
static void on_output(struct evbuffer *output, const struct evbuffer_cb_info *info, void *context)
{
    struct client *client = context;
    bool is_taken = info->n_deleted > 0 && evbuffer_get_length(output) == 0;

    if (client->state == CLIENT_REFUSED && is_taken) {
        if (client->tls != NULL)
            tls_stream_say_end(client->tls);
        shutdown(bufferevent_getfd(client->bufferevent), SHUT_WR);
    }
    /* No handler has seen it: evhttp has answered by itself, and will not tell that it closes. TLS closes its socket.
     */
    if (is_taken && client->connection == NULL && client->tls == NULL)
        server_suspect(client->server, client);
    if (client->access == NULL)
        return;
    access_sent(client->access, info->n_deleted);
    if (is_taken && access_is_answered(client->access))
        end_access(client, true);
}

/* Before the first request: TLS did not come about. */
static void on_tls_failed(void *context, bool is_plain, const char *reason)
{
    struct client *client = context;

    if (is_plain) {
        reception_refuse_plain(client_peer(client), bufferevent_get_output(client->bufferevent));
        end_with_answer(client, 400);
        return;
    }
    log_info_limited("TLS handshake failed: %s, client %s", reason, client_peer(client)->name);
    client->state = CLIENT_REFUSED;
    timer_start(client->timer, LINGER_MS);
    shutdown(bufferevent_getfd(client->bufferevent), SHUT_WR);
}

static void gone(struct client *client)
{
    if (client->watcher.on_gone != NULL)
        client->watcher.on_gone(client->watcher.context);
    else
        client_abort(client);
}

/* --- reading ----------------------------------------------------------------------------------------- */

/* Looks at the input from *at on; moves *at over what was looked at. */
static enum guard_verdict feed_guard(struct client *client, struct evbuffer *input, size_t *at)
{
    size_t taken, end = evbuffer_get_length(input);
    enum guard_verdict verdict = request_guard_feed(&client->guard, NULL, 0, &taken);

    while (*at < end && (verdict == GUARD_MORE || verdict == GUARD_COMPLETE)) {
        struct evbuffer_ptr position;
        struct evbuffer_iovec piece;

        if (evbuffer_ptr_set(input, &position, *at, EVBUFFER_PTR_SET) < 0 ||
            evbuffer_peek(input, -1, &position, &piece, 1) < 1)
            log_panic("client: input of %zu bytes has no byte %zu", end, *at);
        verdict = request_guard_feed(&client->guard, piece.iov_base, piece.iov_len, &taken);
        *at += taken;
    }
    return verdict;
}

/*
 * evhttp must not see a part of a head: it would answer some faults itself. The bytes are copied: moved, each byte of a
 * client that sends them one by one would keep half a KiB.
 */
static void hold_back(struct client *client, struct evbuffer *input)
{
    size_t length = evbuffer_get_length(input);

    if (client->held == NULL)
        client->held = evbuffer_new();
    if (client->held == NULL || evbuffer_add(client->held, evbuffer_pullup(input, -1), length) < 0)
        client_abort(client);
    evbuffer_drain(input, length);
}

/* Puts what was held back before the rest of the head. */
static void release_held(struct client *client, struct evbuffer *input)
{
    if (client->held == NULL)
        return;
    client->moving = true;
    evbuffer_prepend_buffer(input, client->held);
    client->moving = false;
    evbuffer_free(client->held);
    client->held = NULL;
}

/* The head is complete and begins the input: is the request let in? */
static bool admit(struct client *client, struct evbuffer *input)
{
    const char *bytes = (const char *)evbuffer_pullup(input, client->guard.position);
    struct request_head head;

    if (bytes == NULL)
        return false;
    request_guard_head(&client->guard, bytes, &head);
    client->admission = reception_admit(server_reception(client->server), &head, client_peer(client),
                                        bufferevent_get_output(client->bufferevent));
    access_head(client->access, &head, !client->guard.is_http_1_1);
    note_client(client);
    return client->admission.route != NULL;
}

/* Counts what the body has grown by. */
static bool hold_body(struct client *client)
{
    uint64_t grown = client->guard.body_bytes - client->body_bytes;

    if (!server_hold_body(client->server, grown))
        return false;
    client->body_bytes += grown;
    return true;
}

static void act_on(struct client *client, struct evbuffer *input, enum guard_verdict verdict)
{
    if (guard_status(verdict) != 0)
        refuse(client, guard_status(verdict));
    else if (verdict == GUARD_PIPELINED)
        client_abort(client);
    else if (!client->guard.head_complete)
        hold_back(client, input);
    else if (!hold_body(client))
        refuse(client, 503);
}

static void read_request(struct client *client, struct evbuffer *input, size_t at)
{
    enum guard_verdict verdict;

    if (!request_guard_started(&client->guard)) {
        end_access(client, false); /* of a probe whose answer is still on its way */
        client->access = access_begin(server_access_log(client->server));
    }
    verdict = feed_guard(client, input, &at);
    if (verdict == GUARD_HEAD) {
        release_held(client, input);
        server_put_last(client->server, client);
        timer_start(client->timer, server_settings(client->server)->body_timeout_ms);
        if (admit(client, input)) {
            at = client->guard.position;
            verdict = feed_guard(client, input, &at);
            act_on(client, input, verdict);
        } else {
            end_with_answer(client, client->admission.status);
        }
    } else {
        act_on(client, input, verdict);
    }
    if (client->state != CLIENT_READING)
        evbuffer_drain(input, evbuffer_get_length(input));
}

/* --- the PROXY protocol ------------------------------------------------------------------------------- */

static bool refuse_proxy(struct client *client, struct evbuffer *received, const char *reason)
{
    log_info_limited("connection closed: %s, peer %s", reason, client_peer(client)->name);
    evbuffer_drain(received, evbuffer_get_length(received));
    client_abort(client);
    return false;
}

/* Takes the header from what was received, once all of it is there. */
static bool take_proxy_header(struct client *client, struct evbuffer *received)
{
    size_t available = evbuffer_get_length(received), length;
    char name[INET6_ADDRSTRLEN];
    const char *bytes;

    if (client->state != CLIENT_PROXIED) { /* it is being closed */
        evbuffer_drain(received, available);
        return false;
    }
    if (available > PROXY_HEADER_MAX_BYTES)
        available = PROXY_HEADER_MAX_BYTES;
    bytes = (const char *)evbuffer_pullup(received, (ev_ssize_t)available);
    if (available == 0)
        return false;
    if (bytes == NULL || !reception_trusts(server_reception(client->server), client_peer(client)->name))
        return refuse_proxy(client, received, "it is not of trusted_proxies");
    switch (proxy_header_read(bytes, available, &length, name)) {
    case PROXY_HEADER_MORE:
        return false;
    case PROXY_HEADER_BAD:
        return refuse_proxy(client, received, "no PROXY protocol header");
    case PROXY_HEADER_DONE:
        break;
    default:
        log_panic("client: unknown result of the PROXY header");
    }
    evbuffer_drain(received, length);
    snprintf(client->peer.name, sizeof client->peer.name, "%s", name);
    client->state = CLIENT_READING;
    return true;
}

static bool on_preface(void *context, struct evbuffer *received)
{
    return take_proxy_header(context, received);
}

/* Without TLS: evhttp must see nothing of the header. */
static void read_proxy_header(struct client *client, struct evbuffer *input)
{
    hold_back(client, input);
    if (client->held == NULL || !take_proxy_header(client, client->held))
        return;
    release_held(client, input);
    server_note_fd(client->server, bufferevent_getfd(client->bufferevent), client);
    if (evbuffer_get_length(input) > 0)
        read_request(client, input, 0);
}

/* Runs before evhttp sees the bytes. What a callback drains, evhttp never sees. */
static void on_input(struct evbuffer *input, const struct evbuffer_cb_info *info, void *context)
{
    struct client *client = context;

    if (info->n_added == 0 || client->moving)
        return;
    switch (client->state) {
    case CLIENT_PROXIED:
        read_proxy_header(client, input);
        break;
    case CLIENT_IDLE:
        client->state = CLIENT_READING;
        timer_start(client->timer, server_settings(client->server)->header_timeout_ms);
        read_request(client, input, info->orig_size);
        break;
    case CLIENT_READING:
        server_note_fd(client->server, bufferevent_getfd(client->bufferevent), client);
        read_request(client, input, info->orig_size);
        break;
    case CLIENT_REFUSED:
    case CLIENT_CLOSING:
        evbuffer_drain(input, evbuffer_get_length(input));
        break;
    case CLIENT_SERVING:
        evbuffer_drain(input, evbuffer_get_length(input));
        log_info_limited("connection closed: the client sent bytes after its request");
        gone(client);
        break;
    default:
        log_panic("client: state %d", (int)client->state);
    }
}

/* The peer's FIN or reset, in every state of a stream: evhttp itself would hide it before the first reply byte. */
static void on_peer_closed(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    gone(context);
}

/* --- deadlines --------------------------------------------------------------------------------------- */

void client_let_go(struct client *client)
{
    if (client->connection != NULL) {
        evhttp_connection_free(client->connection); /* on_connection_closed() frees the client */
        return;
    }
    bufferevent_trigger_event(client->bufferevent, BEV_EVENT_READING | BEV_EVENT_ERROR, 0); /* evhttp frees its side */
    client_free(client);
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    struct client *client = context;

    (void)fd;
    (void)what;
    if (freed_by_evhttp(client)) {
        client_free(client);
        return;
    }
    switch (client->state) {
    case CLIENT_PROXIED:
        client_let_go(client);
        break;
    case CLIENT_READING:
        if (request_guard_started(&client->guard))
            refuse(client, 408);
        else
            client_let_go(client); /* a connection that sent nothing is just closed */
        break;
    case CLIENT_REFUSED:
    case CLIENT_CLOSING:
    case CLIENT_IDLE:
        client_let_go(client);
        break;
    case CLIENT_SERVING:
        break;
    default:
        log_panic("client: state %d", (int)client->state);
    }
}

/* evhttp is about to free the connection, on its own or because of client_let_go(). */
static void on_connection_closed(struct evhttp_connection *connection, void *context)
{
    struct client *client = context;
    struct client_watcher watcher = client->watcher;
    struct access_entry *access = client->access;

    (void)connection;
    client->connection = NULL;
    client->access = NULL;
    if (client->tls != NULL && client->state != CLIENT_CLOSING)
        tls_stream_say_end(client->tls);
    client_free(client);
    if (watcher.on_closed != NULL)
        watcher.on_closed(watcher.context); /* a run ends here, and says what it was */
    access_end(access, false);
}

/* --- life -------------------------------------------------------------------------------------------- */

static struct bufferevent *new_bufferevent(struct client *client)
{
    SSL_CTX *tls = server_tls(client->server);
    const struct tls_stream_handlers handlers = {.on_preface = client->state == CLIENT_PROXIED ? on_preface : NULL,
                                                 .on_failed = on_tls_failed,
                                                 .context = client};

    client->peer.is_tls = tls != NULL;
    if (tls == NULL)
        return bufferevent_socket_new(server_base(client->server), -1, 0);
    return tls_stream_new(tls, server_base(client->server), &handlers, &client->tls);
}

struct client *client_new(struct server *server, bool has_proxy_header)
{
    struct client *client = calloc(1, sizeof *client);
    const struct settings *settings = server_settings(server);

    if (client == NULL)
        return NULL;
    client->server = server;
    client->state = has_proxy_header ? CLIENT_PROXIED : CLIENT_READING;
    request_guard_init(&client->guard, (uint64_t)settings->body_limit_bytes);
    client->bufferevent = new_bufferevent(client);
    client->timer = evtimer_new(server_base(server), on_timer, client);
    server_enter(server, client);
    if (client->bufferevent == NULL || client->timer == NULL ||
        evbuffer_add_cb(bufferevent_get_input(client->bufferevent), on_input, client) == NULL ||
        evbuffer_add_cb(bufferevent_get_output(client->bufferevent), on_output, client) == NULL) {
        client_free(client);
        return NULL;
    }
    bufferevent_incref(client->bufferevent);
    timer_start(client->timer, settings->header_timeout_ms);
    return client;
}

void client_free(struct client *client)
{
    server_leave(client->server, client);
    client_release_body(client);
    end_access(client, false);
    if (client->held != NULL)
        evbuffer_free(client->held);
    if (client->closed != NULL)
        event_free(client->closed);
    if (client->timer != NULL)
        event_free(client->timer);
    if (client->bufferevent != NULL) {
        evbuffer_remove_cb(bufferevent_get_input(client->bufferevent), on_input, client);
        evbuffer_remove_cb(bufferevent_get_output(client->bufferevent), on_output, client);
        server_forget_fd(client->server, bufferevent_getfd(client->bufferevent), client);
        tls_stream_release(client->tls);
        bufferevent_decref(client->bufferevent);
    }
    free(client);
}

void client_free_if_gone(struct client *client)
{
    if (freed_by_evhttp(client))
        client_free(client);
}

const struct peer *client_peer(struct client *client)
{
    if (*client->peer.name == '\0')
        peers_name(bufferevent_getfd(client->bufferevent), client->peer.name);
    return &client->peer;
}

bool client_has_request(const struct client *client)
{
    return client->state == CLIENT_SERVING ||
           (client->state == CLIENT_READING && request_guard_started(&client->guard));
}

bool client_will_ask(const struct client *client)
{
    return client->state == CLIENT_READING || client->state == CLIENT_PROXIED;
}

bool client_may_ask_again(const struct client *client)
{
    return client->state == CLIENT_IDLE;
}

void client_serve(struct client *client, struct evhttp_connection *connection)
{
    client->state = CLIENT_SERVING;
    client->connection = connection;
    server_put_last(client->server, client);
    event_del(client->timer);
    evhttp_connection_set_closecb(connection, on_connection_closed, client);
}

void client_idle(struct client *client)
{
    const struct settings *settings = server_settings(client->server);

    client->state = CLIENT_IDLE;
    server_put_last(client->server, client);
    client->admission = (struct admission){.route = NULL};
    request_guard_init(&client->guard, (uint64_t)settings->body_limit_bytes);
    timer_start(client->timer, settings->keepalive_timeout_ms);
}

void client_release_body(struct client *client)
{
    server_return_body(client->server, client->body_bytes);
    client->body_bytes = 0;
}

void client_watch(struct client *client, const struct client_watcher *watcher)
{
    evutil_socket_t fd = bufferevent_getfd(client->bufferevent);

    client->watcher = *watcher;
    bufferevent_setwatermark(client->bufferevent, EV_READ, 0, SERVING_READ_MAX_BYTES);
    bufferevent_set_timeouts(client->bufferevent, NULL, NULL);
    client->closed = event_new(server_base(client->server), fd, EV_CLOSED, on_peer_closed, client);
    if (client->closed == NULL || event_add(client->closed, NULL) < 0)
        log_error("cannot watch a connection for its end; it is noticed with the next write");
}

void client_keep(struct client *client)
{
    server_keep(client->server, client);
}

void client_unwatch(struct client *client)
{
    client->watcher = (struct client_watcher){.on_closed = NULL};
    bufferevent_setwatermark(client->bufferevent, EV_READ, 0, 0);
    if (client->closed != NULL)
        event_free(client->closed);
    client->closed = NULL;
}

void client_abort(struct client *client)
{
    if (client->state == CLIENT_CLOSING)
        return;
    client->state = CLIENT_CLOSING;
    event_active(client->timer, EV_TIMEOUT, 0);
}

struct bufferevent *client_bufferevent(struct client *client)
{
    return client->bufferevent;
}

int client_socket(struct client *client)
{
    return client->tls == NULL ? bufferevent_getfd(client->bufferevent) : -1;
}
