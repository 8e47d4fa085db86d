#include "worker/server.h"

#include "common/descriptors.h"
#include "common/log.h"
#include "worker/acceptor.h"
#include "worker/client.h"
#include "worker/cors.h"
#include "worker/early_answer.h"
#include "worker/memory_watch.h"
#include "worker/number_text.h"
#include "worker/reception.h"
#include "worker/router.h"
#include "worker/tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <event2/util.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* Guard and reception refuse first, with our own answers; these only bound evhttp behind them. */
#define EVHTTP_HEADERS_MAX_BYTES (GUARD_REQUEST_LINE_MAX_BYTES + GUARD_HEADERS_MAX_BYTES + 4096)
#define EVHTTP_BODY_SLACK_BYTES  4096
#define EVHTTP_PATIENCE_SLACK_S  10
/* Connections without a run, whatever the limit of open files: each may hold a head of 40 KiB. */
#define SPARE_MAX 16384
/* Fewer connections are no burst. */
#define BURST_MIN 64

struct server {
    struct event_base *base;
    struct evhttp *http;
    const struct settings *settings;
    struct reception *reception;
    SSL_CTX *tls;                  /* NULL: plain HTTP */
    struct access_log *access_log; /* NULL: off */
    void *context;
    uint64_t body_bytes;       /* of request bodies held by this worker */
    struct acceptor *acceptor; /* NULL before server_listen() */
    bool stopped;
    struct client_list clients;
    size_t count;               /* of clients */
    size_t peak;                /* of them since server_has_emptied() */
    size_t entered;             /* since the last sweep */
    struct client_queue spares; /* first the one to be let go first */
    size_t spare_count, spare_max;
    bool crowded; /* it was said that some are let go */
    struct client_list suspects;
    struct event *check; /* of suspects, sweep and spares, before all other callbacks */
    struct client **by_fd;
    size_t by_fd_size;
};

struct event_base *server_base(struct server *server)
{
    return server->base;
}

const struct settings *server_settings(const struct server *server)
{
    return server->settings;
}

struct reception *server_reception(struct server *server)
{
    return server->reception;
}

struct access_log *server_access_log(struct server *server)
{
    return server->access_log;
}

struct access_entry *server_access(const struct exchange *exchange)
{
    return exchange->client != NULL ? exchange->client->access : NULL;
}

void server_reopen_log(struct server *server)
{
    access_log_reopen(server->access_log);
}

bool server_hold_body(struct server *server, uint64_t bytes)
{
    if (bytes > 0 && server->body_bytes + bytes > (uint64_t)server->settings->body_memory_bytes)
        return false;
    server->body_bytes += bytes;
    return true;
}

void server_return_body(struct server *server, uint64_t bytes)
{
    server->body_bytes -= bytes;
}

SSL_CTX *server_tls(const struct server *server)
{
    return server->tls;
}

void server_keep(struct server *server, struct client *client)
{
    if (!client->spare)
        return;
    client->spare = false;
    TAILQ_REMOVE(&server->spares, client, spares);
    server->spare_count--;
}

void server_put_last(struct server *server, struct client *client)
{
    server_keep(server, client);
    client->spare = true;
    TAILQ_INSERT_TAIL(&server->spares, client, spares);
    server->spare_count++;
}

/* Those that evhttp has let go of keep memory until a sweep: there are never many more of them than of the others. */
static bool is_sweep_due(const struct server *server)
{
    return server->entered > server->count / 2 + BURST_MIN;
}

void server_enter(struct server *server, struct client *client)
{
    LIST_INSERT_HEAD(&server->clients, client, link);
    server_put_last(server, client);
    server->entered++;
    if (++server->count > server->peak)
        server->peak = server->count;
    if (server->spare_count > server->spare_max || is_sweep_due(server))
        event_active(server->check, 0, 0);
    acceptor_took(server->acceptor);
}

void server_leave(struct server *server, struct client *client)
{
    LIST_REMOVE(client, link);
    server_keep(server, client);
    server->count--;
    if (client->suspect)
        LIST_REMOVE(client, suspects);
    acceptor_lost(server->acceptor);
}

void server_suspect(struct server *server, struct client *client)
{
    if (!client->suspect)
        LIST_INSERT_HEAD(&server->suspects, client, suspects);
    client->suspect = true;
    event_active(server->check, 0, 0);
}

/* New clients come in, even when others hold on to all the places there are. */
static void make_room(struct server *server)
{
    if (server->spare_count > server->spare_max && !server->crowded) {
        log_warn("more than %zu connections without a run: those that have waited longest are closed",
                 server->spare_max);
        server->crowded = true;
    }
    while (server->spare_count > server->spare_max)
        client_let_go(TAILQ_FIRST(&server->spares));
}

static void on_check(evutil_socket_t fd, short what, void *context)
{
    struct server *server = context;
    struct client *client;

    (void)fd;
    (void)what;
    while ((client = LIST_FIRST(&server->suspects)) != NULL) {
        LIST_REMOVE(client, suspects);
        client->suspect = false;
        client_free_if_gone(client);
    }
    if (is_sweep_due(server))
        server_sweep(server);
    make_room(server);
}

void server_note_fd(struct server *server, int fd, struct client *client)
{
    if (fd < 0)
        return;
    if ((size_t)fd >= server->by_fd_size) {
        size_t size = (size_t)fd * 2 + 64;
        struct client **grown = realloc(server->by_fd, size * sizeof *grown);

        if (grown == NULL)
            return; /* the handler will not find it, and say 500 */
        memset(grown + server->by_fd_size, 0, (size - server->by_fd_size) * sizeof *grown);
        server->by_fd = grown;
        server->by_fd_size = size;
    }
    server->by_fd[fd] = client;
}

void server_forget_fd(struct server *server, int fd, const struct client *client)
{
    if (fd >= 0 && (size_t)fd < server->by_fd_size && server->by_fd[fd] == client)
        server->by_fd[fd] = NULL;
}

static struct client *find_client(struct server *server, struct bufferevent *bufferevent)
{
    evutil_socket_t fd = bufferevent_getfd(bufferevent);
    struct client *client = fd >= 0 && (size_t)fd < server->by_fd_size ? server->by_fd[fd] : NULL;

    return client != NULL && client_bufferevent(client) == bufferevent ? client : NULL;
}

/* --- replies ----------------------------------------------------------------------------------------- */

/*
 * Does the connection outlive the answer? A HEAD with a body never does: evhttp leaves that body unread, and would take
 * it for the next request.
 */
static bool stays_open(const struct exchange *exchange)
{
    const struct client *client = exchange->client;

    return client != NULL && client->admission.route->keep_alive && !exchange->server->stopped &&
           !(client->admission.head_only && request_guard_has_body(&client->guard));
}

void server_add_headers(struct exchange *exchange)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);
    struct cors_field fields[CORS_FIELDS_MAX];
    size_t count = exchange->client != NULL ? cors_fields(exchange->client->admission.allow_origin, fields) : 0;
    char date[32];

    evutil_date_rfc1123(date, sizeof date, NULL);
    evhttp_add_header(headers, "Date", date); /* evhttp gives none to HTTP/1.0 */
    evhttp_add_header(headers, "Server", "sandstorm");
    for (size_t i = 0; i < count; i++)
        evhttp_add_header(headers, fields[i].name, fields[i].value);
}

/* The body of the request was used; the connection of a probe waits for the next one. */
static void end_exchange(struct exchange *exchange)
{
    struct client *client = exchange->client;
    struct evbuffer *input = evhttp_request_get_input_buffer(exchange->request);

    evbuffer_drain(input, evbuffer_get_length(input));
    if (client == NULL)
        return;
    client_release_body(client);
    if (stays_open(exchange))
        client_idle(client);
}

/* evhttp sends what it is given, also to HEAD. The body is taken over. */
static void send_body(struct exchange *exchange, int status, const char *type, struct evbuffer *body, size_t length)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);
    char length_text[24];

    snprintf(length_text, sizeof length_text, "%zu", length);
    server_add_headers(exchange);
    evhttp_add_header(headers, "Content-Type", type);
    evhttp_add_header(headers, "Content-Length", length_text);
    if (body != NULL && evhttp_request_get_command(exchange->request) == EVHTTP_REQ_HEAD)
        evbuffer_drain(body, length);
    access_status(server_access(exchange), status);
    access_answered(server_access(exchange));
    end_exchange(exchange);
    evhttp_send_reply(exchange->request, status, http_reason(status), body);
    /* evhttp would take the end of what the client has to say for the client's, and cut the answer. */
    if (exchange->client != NULL && exchange->client->state != CLIENT_IDLE)
        bufferevent_disable(client_bufferevent(exchange->client), EV_READ);
    if (body != NULL)
        evbuffer_free(body);
}

static void send_reply(struct exchange *exchange, int status, const char *text, size_t length)
{
    struct evbuffer *body = evbuffer_new();

    if (body != NULL)
        evbuffer_add(body, text, length);
    send_body(exchange, status, "application/json", body, length);
}

void server_reply_static(struct exchange *exchange, const char *type, const char *bytes, size_t length)
{
    struct evbuffer *body = evbuffer_new();

    if (body != NULL)
        evbuffer_add_reference(body, bytes, length, NULL, NULL);
    send_body(exchange, 200, type, body, length);
}

void server_reply_buffer(struct exchange *exchange, const char *type, struct evbuffer *body)
{
    send_body(exchange, 200, type, body, evbuffer_get_length(body));
}

void server_reply_json(struct exchange *exchange, int status, json_t *body)
{
    char *text = body != NULL
                     ? json_dumps_whole(body, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(NUMBER_TEXT_DIGITS))
                     : NULL;

    json_decref(body);
    if (text != NULL)
        send_reply(exchange, status, text, strlen(text));
    else
        server_reply_internal(exchange, "an answer could not be made: out of memory");
    free(text);
}

void server_reply_json_text(struct exchange *exchange, int status, struct evbuffer *body)
{
    send_body(exchange, status, "application/json", body, evbuffer_get_length(body));
}

void server_reply_detail(struct exchange *exchange, int status, const char *detail)
{
    server_reply_json(exchange, status, json_pack("{s:s}", "detail", detail));
}

void server_reply_error(struct exchange *exchange, int status, const char *text)
{
    server_reply_json(exchange, status, json_pack("{s:s}", "error", text));
}

void server_reply_retry(struct exchange *exchange, const char *detail)
{
    struct client *client = exchange->client;
    char seconds[RETRY_AFTER_BUFFER];

    retry_after(seconds);
    evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "Retry-After", seconds);
    reception_log_refusal(&client->admission, client_peer(client), 503, detail);
    server_reply_detail(exchange, 503, detail);
}

void server_reply_internal(struct exchange *exchange, const char *reason)
{
    static const char body[] = "{\"detail\":\"Internal Server Error\"}";

    log_error("internal failure %08lx: %s", mrand48() & 0xffffffffL, reason);
    send_reply(exchange, 500, body, sizeof body - 1);
}

/* --- requests ---------------------------------------------------------------------------------------- */

/* Query and id, for the handler: they live as long as the request. */
static void take_target(struct exchange *exchange)
{
    const char *target = evhttp_request_get_uri(exchange->request);
    struct router_match match;

    /* The first route of the rest of the table is the one that was found. */
    if (exchange->client == NULL ||
        router_match(exchange->client->admission.route, (struct span){target, strlen(target)}, &match) != ROUTER_FOUND)
        return;
    exchange->query = match.query;
    exchange->id = match.id;
    exchange->data = match.route->data;
}

/* Every complete request that was let in comes here. */
static void on_request(struct evhttp_request *request, void *context)
{
    struct server *server = context;
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    struct exchange exchange = {.server = server, .request = request, .context = server->context};

    exchange.client = find_client(server, evhttp_connection_get_bufferevent(connection));
    if (exchange.client != NULL)
        client_serve(exchange.client, connection);
    /* Every answer but a probe's ends its connection (http-api.md 2.2). */
    if (!stays_open(&exchange))
        evhttp_add_header(evhttp_request_get_output_headers(request), "Connection", "close");
    take_target(&exchange);
    exchange.body_length = evbuffer_get_length(input);
    exchange.body = (const char *)evbuffer_pullup(input, -1);
    if (exchange.client != NULL && (exchange.body != NULL || exchange.body_length == 0))
        exchange.client->admission.route->handler(&exchange);
    else
        server_reply_internal(&exchange, "out of memory");
}

/* --- accepting --------------------------------------------------------------------------------------- */

static struct bufferevent *on_accept(struct event_base *base, void *context)
{
    struct server *server = context;
    /* evhttp does not say which socket it accepts from: the event that runs is that socket's. */
    evutil_socket_t listening = event_get_fd(event_base_get_running_event(base));
    struct client *client = client_new(server, acceptor_expects_proxy_header(server->acceptor, listening));

    return client != NULL ? client_bufferevent(client) : NULL;
}

/* No other method is let in. */
#define METHODS (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD)

/* evhttp's own inactivity timer would close without an answer: it comes after all of ours. */
static int64_t evhttp_patience_s(const struct settings *settings)
{
    int64_t longest_ms = settings->keepalive_timeout_ms;

    if (settings->header_timeout_ms > longest_ms)
        longest_ms = settings->header_timeout_ms;
    if (settings->body_timeout_ms > longest_ms)
        longest_ms = settings->body_timeout_ms;
    return longest_ms / 1000 + EVHTTP_PATIENCE_SLACK_S;
}

/* What the runs and the worker itself need is not for connections without a run. */
static size_t spare_max(const struct settings *settings)
{
    rlim_t taken = (rlim_t)settings->max_runs * DESCRIPTORS_PER_RUN + DESCRIPTORS_OWN;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < taken + DESCRIPTORS_SPARE_MIN)
        return DESCRIPTORS_SPARE_MIN;
    return limit.rlim_cur - taken < SPARE_MAX ? limit.rlim_cur - taken : SPARE_MAX;
}

struct server *server_new(struct event_base *base, const struct settings *settings, const struct route *routes,
                          const struct tls_files *tls_files, void *context)
{
    struct server *server = calloc(1, sizeof *server);
    struct timeval patience = {.tv_sec = evhttp_patience_s(settings)};

    if (server == NULL)
        return NULL;
    LIST_INIT(&server->clients);
    LIST_INIT(&server->suspects);
    TAILQ_INIT(&server->spares);
    server->spare_max = spare_max(settings);
    server->base = base;
    server->settings = settings;
    server->context = context;
    server->reception = reception_new(settings, routes, context);
    server->http = evhttp_new(base);
    server->check = event_new(base, -1, 0, on_check, server);
    server->tls = tls_files != NULL ? tls_context_new(tls_files) : NULL;
    if (server->reception == NULL || server->http == NULL || server->check == NULL ||
        event_priority_set(server->check, SERVER_PRIORITY) < 0 || (tls_files != NULL && server->tls == NULL) ||
        !access_log_open(settings, &server->access_log)) {
        server_free(server);
        return NULL;
    }
    evhttp_set_bevcb(server->http, on_accept, server);
    evhttp_set_gencb(server->http, on_request, server);
    evhttp_set_allowed_methods(server->http, METHODS);
    evhttp_set_max_headers_size(server->http, EVHTTP_HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(server->http, settings->body_limit_bytes + EVHTTP_BODY_SLACK_BYTES);
    evhttp_set_timeout_tv(server->http, &patience);
    return server;
}

bool server_listen(struct server *server, struct scoreboard *scoreboard, int slot, const int *listen_fds, size_t count,
                   uint64_t proxied)
{
    server->acceptor = acceptor_new(server->base, server->http, scoreboard, slot, listen_fds, count, proxied);
    return server->acceptor != NULL;
}

void server_stop_accepting(struct server *server, bool take_waiting)
{
    server->stopped = true;
    acceptor_stop(server->acceptor, take_waiting);
}

bool server_has_stopped_accepting(const struct server *server)
{
    return server->stopped && acceptor_is_closed(server->acceptor);
}

void server_sweep(struct server *server)
{
    struct client *client, *next;

    server->entered = 0;
    server->crowded = server->crowded && server->spare_count > server->spare_max / 2;
    for (client = LIST_FIRST(&server->clients); client != NULL; client = next) {
        next = LIST_NEXT(client, link);
        client_free_if_gone(client);
    }
}

bool server_has_emptied(struct server *server)
{
    if (server->peak < BURST_MIN || server->count > server->peak / 4)
        return false;
    server->peak = server->count;
    return true;
}

size_t server_open_requests(struct server *server, enum server_waiting waiting)
{
    const struct client *client;
    size_t count = 0;

    LIST_FOREACH(client, &server->clients, link)
    {
        count += client_has_request(client) || (waiting >= SERVER_WAITING_FIRST && client_will_ask(client)) ||
                 (waiting >= SERVER_WAITING_ALL && client_may_ask_again(client));
    }
    return count;
}

/* evhttp_free() frees listeners and connections; what evhttp never gave to a handler is ours to free. */
void server_free(struct server *server)
{
    struct client *client;

    if (server == NULL)
        return;
    if (server->http != NULL)
        evhttp_free(server->http);
    while ((client = LIST_FIRST(&server->clients)) != NULL)
        client_free(client);
    if (server->check != NULL)
        event_free(server->check);
    acceptor_free(server->acceptor);
    reception_free(server->reception);
    SSL_CTX_free(server->tls);
    access_log_free(server->access_log);
    free(server->by_fd);
    free(server);
}
