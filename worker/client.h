/*
 * client: one connection beside its evhttp_connection: guard, deadlines, disconnects. Inside of the server layer only.
 *
 * evhttp sees a request's head only when it is complete and was let in (reception): all others are answered here, and
 * nothing of evhttp's own answers ever reaches a client.
 *
 * evhttp tells nobody when it frees a connection it has not yet given to a handler, so the bufferevent is held by a
 * reference of ours: its callbacks are gone once evhttp has let go of it, and the next sweep finds that out.
 */
#ifndef WORKER_CLIENT_H
#define WORKER_CLIENT_H

#include "worker/access_log.h"
#include "worker/reception.h"
#include "worker/request_guard.h"
#include "worker/server.h"
#include "worker/tls_stream.h"

#include <event2/bufferevent.h>
#include <sys/queue.h>

enum client_state {
    CLIENT_PROXIED, /* a PROXY protocol header is coming in, before anything else */
    CLIENT_READING, /* a request is coming in: under a deadline */
    CLIENT_REFUSED, /* the guard refused it: our answer goes out, then the connection ends */
    CLIENT_SERVING, /* a handler or a stream has the request */
    CLIENT_IDLE,    /* between two probes */
    CLIENT_CLOSING, /* to be closed from the loop */
};

struct client {
    struct server *server;
    struct bufferevent *bufferevent;      /* with a reference of ours; what passes here is in the clear */
    struct tls_stream *tls;               /* behind it; NULL: plain HTTP */
    struct evhttp_connection *connection; /* from the first handler on, else NULL */
    struct access_entry *access; /* of the request that comes in, or was not yet answered to its end; NULL: none */
    enum client_state state;
    struct event *timer;  /* deadline of the state; the deferred close */
    struct event *closed; /* EV_CLOSED, while watched */
    struct peer peer;
    struct request_guard guard;
    struct evbuffer *held;         /* an incomplete head, held back from evhttp; NULL: none */
    struct admission admission;    /* of the request whose head is complete */
    uint64_t body_bytes;           /* counted by server_hold_body() for this request */
    struct client_watcher watcher; /* on_closed NULL: nobody watches */
    bool suspect;                  /* on the list of those that server_suspect() looks at */
    bool moving;                   /* bytes held back go to evhttp: on_input() has seen them */
    bool spare;                    /* it has no run: it is let go when others need its place */
    LIST_ENTRY(client) link;
    LIST_ENTRY(client) suspects;
    TAILQ_ENTRY(client) spares;
};

LIST_HEAD(client_list, client);
TAILQ_HEAD(client_queue, client);

/* What clients need of their server. */
struct event_base *server_base(struct server *server);
const struct settings *server_settings(const struct server *server);
struct reception *server_reception(struct server *server);
SSL_CTX *server_tls(const struct server *server); /* NULL: plain HTTP */
struct access_log *server_access_log(struct server *server);
/* Counts bytes of request bodies; false when they would pass body_memory: then nothing is counted. */
bool server_hold_body(struct server *server, uint64_t bytes) __attribute__((warn_unused_result));
void server_return_body(struct server *server, uint64_t bytes);
/* A connection begins and ends. */
void server_enter(struct server *server, struct client *client);
void server_leave(struct server *server, struct client *client);
/*
 * evhttp may be about to let it go without a word, and close the socket, while our reference keeps the bufferevent's
 * events: on the next descriptor of that number they would take what comes for another. So it is looked at before any
 * other callback runs.
 */
void server_suspect(struct server *server, struct client *client);
/* It has come a step further: of those without a run it is let go last. */
void server_put_last(struct server *server, struct client *client);
/* It has a run: it is let go for nobody. */
void server_keep(struct server *server, struct client *client);
/* The handler finds its client by the connection's descriptor. */
void server_note_fd(struct server *server, int fd, struct client *client);
void server_forget_fd(struct server *server, int fd, const struct client *client);

/* Makes a bufferevent for a connection that evhttp is about to accept; NULL for lack of memory. */
struct client *client_new(struct server *server, bool has_proxy_header) __attribute__((warn_unused_result));
void client_free(struct client *client);

/* Who is at the other end. */
const struct peer *client_peer(struct client *client);

/* A complete request reached its handler. */
void client_serve(struct client *client, struct evhttp_connection *connection);
/* Frees it if evhttp has freed the connection before a handler saw it: nobody else tells. */
void client_free_if_gone(struct client *client);
/* Closes the connection and frees the client. From the loop: nothing of evhttp may be on the stack. */
void client_let_go(struct client *client);

/* A request is coming in, or being served. */
bool client_has_request(const struct client *client);
/* Its first request is still to come; or, between two probes, the next one. */
bool client_will_ask(const struct client *client);
bool client_may_ask_again(const struct client *client);

/* Nothing of the request's body is kept any more. A stream's handler keeps what it needs as long as its client stays.
 */
void client_release_body(struct client *client);

/* A probe was answered: the connection waits for the next one. */
void client_idle(struct client *client);

#endif
