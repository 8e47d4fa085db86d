/*
 * server: the HTTP side of a worker: evhttp with the limits, deadlines and hygiene it lacks (libs.md).
 *
 * Knows connections and routes, nothing of what a route does. A route's handler answers at once with server_reply_*(),
 * or takes the request over for a stream (event_stream).
 */
#ifndef WORKER_SERVER_H
#define WORKER_SERVER_H

#include "common/scoreboard.h"
#include "common/settings.h"
#include "common/tls_files.h"

#include "worker/span.h"

#include <event2/event.h>
#include <event2/http.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct server;
struct client; /* one connection */
struct access_entry;

/* One request on its way through a handler. */
struct exchange {
    struct server *server;
    struct client *client;
    struct evhttp_request *request;
    const char *body; /* not terminated */
    size_t body_length;
    struct span query; /* as sent; absent when the target has none */
    struct span id;    /* as sent: what stands for `{id}` in the path of the route, if it has one */
    const void *data;  /* of the route */
    void *context;     /* of server_new() */
};

struct route {
    enum evhttp_cmd_type method; /* EVHTTP_REQ_GET answers HEAD as well */
    const char *path;            /* decoded; a segment `{id}` stands for any */
    void (*handler)(struct exchange *exchange);
    bool guarded;       /* needs the bearer */
    struct span secret; /* what X-Sandstorm-Trigger-Secret must say; bytes NULL: nothing */
    /* Does this query need the bearer? NULL: none does. */
    bool (*guarded_by_query)(struct span query);
    bool keep_alive; /* a health probe: the connection stays open */
    /* Is the instance stopping? Then such a request gets 503. NULL: it is served to the end. */
    bool (*is_stopping)(const void *context);
    const void *data; /* what the handler finds in its exchange */
};

/* The base needs so many priorities; the first of them is the server's. */
#define SERVER_PRIORITIES 2
#define SERVER_PRIORITY   0

/* routes ends with path NULL and stays with the caller. With tls_files, HTTPS is served; NULL: HTTP. */
struct server *server_new(struct event_base *base, const struct settings *settings, const struct route *routes,
                          const struct tls_files *tls_files, void *context) __attribute__((warn_unused_result));
/* proxied: a bit for each socket; its connections begin with a PROXY protocol header. */
bool server_listen(struct server *server, struct scoreboard *scoreboard, int slot, const int *listen_fds, size_t count,
                   uint64_t proxied) __attribute__((warn_unused_result));
/*
 * Closes the listening sockets; take_waiting: after what waits on them was taken, because nobody else will. Open
 * connections go on. Probes lose their keep-alive.
 */
void server_stop_accepting(struct server *server, bool take_waiting);
/* Stopped, and nothing more will come. */
bool server_has_stopped_accepting(const struct server *server);
/* Frees what belonged to connections that evhttp has let go of unseen. To be called every second or so. */
void server_sweep(struct server *server);
/* Have most of many connections ended since this was last true? A moment to return their memory. */
bool server_has_emptied(struct server *server) __attribute__((warn_unused_result));
/* What counts besides connections with a request or a stream. */
enum server_waiting {
    SERVER_WAITING_NONE,
    SERVER_WAITING_FIRST, /* connections that have not asked anything yet */
    SERVER_WAITING_ALL,   /* and those between two probes */
};

size_t server_open_requests(struct server *server, enum server_waiting waiting);
/* The access log was renamed. */
void server_reopen_log(struct server *server);
void server_free(struct server *server);

/* Replies of a whole; each ends the exchange. */
void server_reply_json(struct exchange *exchange, int status, json_t *body /* taken over */);
/* As server_reply_json() with a text that is JSON already; taken over. */
void server_reply_json_text(struct exchange *exchange, int status, struct evbuffer *body);
/* {"detail":"<detail>"} */
void server_reply_detail(struct exchange *exchange, int status, const char *detail);
/* {"error":"<text>"}: on routes that answered so before there was a detail. */
void server_reply_error(struct exchange *exchange, int status, const char *text);
/* As server_reply_detail() with a Retry-After spread over 1 to 30 seconds. */
void server_reply_retry(struct exchange *exchange, const char *detail);
/* 200 with a Content-Type and bytes that stay where they are to the end of the program. */
void server_reply_static(struct exchange *exchange, const char *type, const char *bytes, size_t length);
/* 200 with a Content-Type and a body, taken over. */
void server_reply_buffer(struct exchange *exchange, const char *type, struct evbuffer *body);
/* 500; the reason goes to the log under an id. */
void server_reply_internal(struct exchange *exchange, const char *reason);

/* The header lines every answer has, for handlers that send their own: Date, Server, CORS. */
void server_add_headers(struct exchange *exchange);

/* --- for streams ---------------------------------------------------------------------------------- */

struct client_watcher {
    /* The client closed, was reset, or sent bytes it must not send. The connection still exists. */
    void (*on_gone)(void *context);
    /* The connection is being freed. Called once, last; the request must not be touched any more. */
    void (*on_closed)(void *context);
    void *context;
};

/* The line of a request in the access log, which lives until on_closed has returned; NULL: none. */
struct access_entry *server_access(const struct exchange *exchange);
/* Takes a request over: from now on its end is noticed in every state. */
void client_watch(struct client *client, const struct client_watcher *watcher);
/* It has a run. Of clients without one only so many may be here: then the one that has not come further for longest is
 * let go. */
void client_keep(struct client *client);
/* Before a reply of a whole: the watcher is not called any more. */
void client_unwatch(struct client *client);
/* Closes the connection from the loop, soon; on_closed follows. */
void client_abort(struct client *client);
struct bufferevent *client_bufferevent(struct client *client);
/* The socket that takes the output as it is; -1: it is encrypted first. */
int client_socket(struct client *client);

#endif
