#include "worker/server.h"

#include "common/log.h"
#include "worker/acceptor.h"
#include "worker/client.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/keyvalq_struct.h>
#include <stdlib.h>
#include <string.h>

#define RETRY_AFTER_MAX_S 30
/* The guard refuses first, with our own answers; these only bound evhttp behind it. */
#define EVHTTP_HEADERS_MAX_BYTES (GUARD_REQUEST_LINE_MAX_BYTES + GUARD_HEADERS_MAX_BYTES + 4096)
#define EVHTTP_BODY_SLACK_BYTES  4096

struct server {
    struct event_base *base;
    struct evhttp *http;
    const struct settings *settings;
    const struct route *routes;
    void *context;
    struct acceptor *acceptor; /* NULL before server_listen() */
    bool stopped;
    struct client_list clients;
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

void server_enter(struct server *server, struct client *client)
{
    LIST_INSERT_HEAD(&server->clients, client, link);
    acceptor_took(server->acceptor);
}

void server_leave(struct server *server, struct client *client)
{
    LIST_REMOVE(client, link);
    acceptor_lost(server->acceptor);
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

static const char *reason_of(int status)
{
    static const struct {
        int status;
        const char *reason;
    } reasons[] = {{200, "OK"},
                   {400, "Bad Request"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {422, "Unprocessable Entity"},
                   {500, "Internal Server Error"},
                   {503, "Service Unavailable"}};

    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
        if (reasons[i].status == status)
            return reasons[i].reason;
    }
    return "Unknown";
}

/* Content-Length is set here: evhttp leaves it out of answers to HEAD. */
static void send_reply(struct exchange *exchange, int status, const char *text, size_t length)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);
    struct evbuffer *body = evbuffer_new();
    char length_text[24];

    snprintf(length_text, sizeof length_text, "%zu", length);
    evhttp_add_header(headers, "Server", "sandstorm");
    evhttp_add_header(headers, "Content-Type", "application/json");
    evhttp_add_header(headers, "Content-Length", length_text);
    if (body != NULL)
        evbuffer_add(body, text, length);
    evhttp_send_reply(exchange->request, status, reason_of(status), body);
    if (body != NULL)
        evbuffer_free(body);
}

void server_reply_json(struct exchange *exchange, int status, json_t *body)
{
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    json_decref(body);
    if (text != NULL)
        send_reply(exchange, status, text, strlen(text));
    else
        send_reply(exchange, 500, "{\"detail\":\"Internal Server Error\"}",
                   strlen("{\"detail\":\"Internal Server Error\"}"));
    free(text);
}

void server_reply_detail(struct exchange *exchange, int status, const char *detail)
{
    server_reply_json(exchange, status, json_pack("{s:s}", "detail", detail));
}

void server_reply_retry(struct exchange *exchange, const char *detail)
{
    char seconds[16];

    snprintf(seconds, sizeof seconds, "%d", 1 + (int)(drand48() * RETRY_AFTER_MAX_S));
    evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "Retry-After", seconds);
    log_info("request refused: 503 %s", detail);
    server_reply_detail(exchange, 503, detail);
}

/* --- routing ----------------------------------------------------------------------------------------- */

static bool method_fits(enum evhttp_cmd_type wanted, enum evhttp_cmd_type method)
{
    return wanted == method || (wanted == EVHTTP_REQ_GET && method == EVHTTP_REQ_HEAD);
}

static void reply_wrong_method(struct exchange *exchange, const struct route *route)
{
    evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "Allow",
                      route->method == EVHTTP_REQ_GET ? "GET" : "POST");
    server_reply_detail(exchange, 405, "Method Not Allowed");
}

/* The decoded path, or NULL with *bad when it holds %00. */
static char *decoded_path(struct evhttp_request *request, bool *bad)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const char *path = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    size_t length = 0;
    char *decoded = evhttp_uridecode(path != NULL && *path != '\0' ? path : "/", 0, &length);

    *bad = decoded != NULL && strlen(decoded) != length;
    return decoded;
}

/* Every answer but a probe's ends its connection (http-api.md 2.2). */
static void set_connection(struct exchange *exchange, const struct route *route)
{
    bool keep = route != NULL && route->keep_alive && !exchange->server->stopped;

    if (!keep)
        evhttp_add_header(evhttp_request_get_output_headers(exchange->request), "Connection", "close");
}

static void dispatch(struct exchange *exchange, const char *path)
{
    enum evhttp_cmd_type method = evhttp_request_get_command(exchange->request);
    const struct route *route = exchange->server->routes;

    while (route->path != NULL && strcmp(route->path, path) != 0)
        route++;
    if (route->path == NULL) {
        set_connection(exchange, NULL);
        server_reply_detail(exchange, 404, "Not Found");
    } else if (!method_fits(route->method, method)) {
        set_connection(exchange, NULL);
        reply_wrong_method(exchange, route);
    } else {
        set_connection(exchange, route);
        if (route->keep_alive)
            client_idle(exchange->client);
        route->handler(exchange);
    }
}

/* Every complete request comes here. */
static void on_request(struct evhttp_request *request, void *context)
{
    struct server *server = context;
    struct evhttp_connection *connection = evhttp_request_get_connection(request);
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    struct exchange exchange = {.server = server, .request = request, .context = server->context};
    char *path;
    bool bad;

    exchange.client = find_client(server, evhttp_connection_get_bufferevent(connection));
    path = decoded_path(request, &bad);
    if (exchange.client == NULL || path == NULL) {
        set_connection(&exchange, NULL);
        server_reply_detail(&exchange, 500, "Internal Server Error");
    } else if (bad) {
        client_serve(exchange.client, connection);
        set_connection(&exchange, NULL);
        server_reply_detail(&exchange, 400, "Bad Request");
    } else {
        client_serve(exchange.client, connection);
        exchange.body_length = evbuffer_get_length(input);
        exchange.body = (const char *)evbuffer_pullup(input, -1);
        dispatch(&exchange, path);
    }
    free(path);
}

/* --- accepting --------------------------------------------------------------------------------------- */

static struct bufferevent *on_accept(struct event_base *base, void *context)
{
    struct server *server = context;
    struct client *client = client_new(server);

    (void)base;
    return client != NULL ? client_bufferevent(client) : NULL;
}

/* Methods the server knows; evhttp answers 501 to others. All of these reach routing, which says 405. */
#define METHODS                                                                                                        \
    (EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD | EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS |    \
     EVHTTP_REQ_PATCH | EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT)

struct server *server_new(struct event_base *base, const struct settings *settings, const struct route *routes,
                          void *context)
{
    struct server *server = calloc(1, sizeof *server);
    struct timeval idle = {.tv_sec = settings->keepalive_timeout_ms / 1000,
                           .tv_usec = settings->keepalive_timeout_ms % 1000 * 1000};

    if (server == NULL)
        return NULL;
    LIST_INIT(&server->clients);
    server->base = base;
    server->settings = settings;
    server->routes = routes;
    server->context = context;
    server->http = evhttp_new(base);
    if (server->http == NULL) {
        free(server);
        return NULL;
    }
    evhttp_set_bevcb(server->http, on_accept, server);
    evhttp_set_gencb(server->http, on_request, server);
    evhttp_set_allowed_methods(server->http, METHODS);
    evhttp_set_max_headers_size(server->http, EVHTTP_HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(server->http, settings->body_limit_bytes + EVHTTP_BODY_SLACK_BYTES);
    evhttp_set_timeout_tv(server->http, &idle);
    return server;
}

bool server_listen(struct server *server, struct scoreboard *scoreboard, int slot, const int *listen_fds, size_t count)
{
    server->acceptor = acceptor_new(server->base, server->http, scoreboard, slot, listen_fds, count);
    return server->acceptor != NULL;
}

void server_stop_accepting(struct server *server)
{
    server->stopped = true;
    acceptor_stop(server->acceptor);
}

void server_sweep(struct server *server)
{
    struct client *client, *next;

    for (client = LIST_FIRST(&server->clients); client != NULL; client = next) {
        next = LIST_NEXT(client, link);
        client_free_if_gone(client);
    }
}

size_t server_open_requests(struct server *server, bool with_waiting)
{
    const struct client *client;
    size_t count = 0;

    LIST_FOREACH(client, &server->clients, link)
    count += client_has_request(client) || (with_waiting && client_may_ask(client));
    return count;
}

/* evhttp_free() frees listeners and connections; what evhttp never gave to a handler is ours to free. */
void server_free(struct server *server)
{
    struct client *client;

    if (server == NULL)
        return;
    evhttp_free(server->http);
    while ((client = LIST_FIRST(&server->clients)) != NULL)
        client_free(client);
    acceptor_free(server->acceptor);
    free(server->by_fd);
    free(server);
}
