#include "sandboxd/server.h"

#include "common/log.h"
#include "sandboxd/access.h"
#include "sandboxd/envd_files.h"
#include "sandboxd/reply.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEADERS_MAX_BYTES (64 * 1024)
/* Room for a sender that is over the limit to be told so in JSON; beyond it evhttp itself closes the connection. */
#define BODY_SLACK_BYTES ((size_t)8 * 1024 * 1024)
#define ENVD_PORT        49983

struct server {
    struct daemon *daemon;
    struct evhttp *http;
    struct intake_table *intakes;
    const struct api_keys *keys; /* NULL: none is asked for */
};

/* What a route belongs to, and so how its errors look. */
enum route_kind {
    ROUTE_API,    /* control API: int code */
    ROUTE_HTTP,   /* envd's plain HTTP: int code */
    ROUTE_UNARY,  /* Connect: string code, the status carries the error */
    ROUTE_STREAM, /* Connect: 200 and an end of stream */
};

struct route {
    enum route_kind kind;
    int method;       /* enum evhttp_cmd_type */
    const char *path; /* "*" stands for the id of a sandbox */
    request_handler handler;
    bool own_token_check; /* or none */
};

/* The control API. */
static const struct route api_routes[] = {
    {ROUTE_API, EVHTTP_REQ_GET, "/health", api_health, true},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes", api_create, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/v2/sandboxes", api_create, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/sandboxes", api_list, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/v2/sandboxes", api_list, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/sandboxes/*", api_get, false},
    {ROUTE_API, EVHTTP_REQ_DELETE, "/sandboxes/*", api_delete, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/timeout", api_timeout, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/refreshes", api_refresh, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/connect", api_connect, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/v2/sandboxes/*/connect", api_connect, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/resume", api_resume, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/pause", api_pause, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/fork", api_unimplemented, false},
    {ROUTE_API, EVHTTP_REQ_POST, "/sandboxes/*/snapshots", api_unimplemented, false},
    {ROUTE_API, EVHTTP_REQ_PUT, "/sandboxes/*/network", api_unimplemented, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/sandboxes/*/metrics", api_unimplemented, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/sandboxes/*/logs", api_unimplemented, false},
    {ROUTE_API, EVHTTP_REQ_GET, "/v2/sandboxes/*/logs", api_unimplemented, false},
};

/* A sandbox's envd. */
static const struct route envd_routes[] = {
    {ROUTE_HTTP, EVHTTP_REQ_GET, "/health", envd_health, true},
    {ROUTE_HTTP, EVHTTP_REQ_GET, "/files", envd_files_read, true},
    {ROUTE_HTTP, EVHTTP_REQ_POST, "/files", envd_files_write, true},
    {ROUTE_STREAM, EVHTTP_REQ_POST, "/process.Process/Start", envd_process_start, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/process.Process/List", envd_process_list, false},
    {ROUTE_STREAM, EVHTTP_REQ_POST, "/process.Process/Connect", envd_process_connect, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/process.Process/SendSignal", envd_process_send_signal, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/process.Process/SendInput", envd_process_send_input, false},
    {ROUTE_STREAM, EVHTTP_REQ_POST, "/process.Process/StreamInput", envd_process_stream_input, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/process.Process/CloseStdin", envd_process_close_stdin, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/process.Process/Update", envd_process_update, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/Stat", envd_filesystem_stat, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/ListDir", envd_filesystem_list_dir, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/MakeDir", envd_filesystem_make_dir, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/Move", envd_filesystem_move, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/Remove", envd_filesystem_remove, false},
    {ROUTE_STREAM, EVHTTP_REQ_POST, "/filesystem.Filesystem/WatchDir", envd_filesystem_watch_dir, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/CreateWatcher", envd_filesystem_create_watcher, false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/GetWatcherEvents", envd_filesystem_get_watcher_events,
     false},
    {ROUTE_UNARY, EVHTTP_REQ_POST, "/filesystem.Filesystem/RemoveWatcher", envd_filesystem_remove_watcher, false},
};

/* Kept for the control plane: not for anybody who comes through here. */
static const char *const reserved_paths[] = {"/init",     "/freeze", "/unfreeze", "/collapse",
                                             "/fsfreeze", "/fsthaw", "/upgrade"};

static const struct {
    int method;
    const char *name;
} methods[] = {
    {EVHTTP_REQ_GET, "GET"}, {EVHTTP_REQ_POST, "POST"}, {EVHTTP_REQ_DELETE, "DELETE"}, {EVHTTP_REQ_PUT, "PUT"}};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* --- what handlers ask ---------------------------------------------------------------------------- */

const char *request_body(const struct request *request, size_t *bytes)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(request->http);

    *bytes = evbuffer_get_length(input);
    return *bytes == 0 ? "" : (const char *)evbuffer_pullup(input, -1);
}

json_t *request_json(const struct request *request)
{
    size_t bytes;
    const char *body = request_body(request, &bytes);
    json_t *json = bytes == 0 ? json_object() : json_loadb(body, bytes, 0, NULL);

    if (!json_is_object(json)) {
        json_decref(json);
        return NULL;
    }
    return json;
}

const char *request_header(const struct request *request, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(request->http), name);
}

const char *request_query(const struct request *request, const char *name)
{
    return evhttp_find_header(&request->query, name);
}

bool json_is_string_map(const json_t *object)
{
    const char *key;
    json_t *value;

    if (object == NULL || json_is_null(object))
        return true;
    if (!json_is_object(object))
        return false;
    json_object_foreach((json_t *)object, key, value)
    {
        if (!json_is_string(value))
            return false;
    }
    return true;
}

/* --- routing -------------------------------------------------------------------------------------- */

/* Whether a path fits a route's; the id, if it has one, is copied. */
static bool path_matches(const char *pattern, const char *path, char *id, size_t id_size)
{
    const char *star = strchr(pattern, '*');
    size_t prefix, length;

    if (star == NULL)
        return strcmp(pattern, path) == 0;
    prefix = (size_t)(star - pattern);
    if (strncmp(pattern, path, prefix) != 0)
        return false;
    length = strcspn(path + prefix, "/");
    if (length == 0 || strcmp(path + prefix + length, star + 1) != 0)
        return false;
    snprintf(id, id_size, "%.*s", (int)length, path + prefix);
    return true;
}

/* The route of a request, or NULL after 404 or 405 was answered. */
static const struct route *find_route(struct request *request, const struct route *routes, size_t count,
                                      const char *path)
{
    char allowed[64] = "";
    int method = (int)evhttp_request_get_command(request->http);

    for (size_t i = 0; i < count; i++) {
        char id[sizeof request->id] = "";

        if (!path_matches(routes[i].path, path, id, sizeof id))
            continue;
        if (routes[i].method == method) {
            if (id[0] != '\0')
                strcpy(request->id, id);
            return &routes[i];
        }
        for (size_t m = 0; m < COUNT(methods); m++) {
            if (methods[m].method == routes[i].method) {
                strcat(allowed, allowed[0] == '\0' ? "" : ", ");
                strcat(allowed, methods[m].name);
            }
        }
    }
    if (allowed[0] == '\0') {
        reply_error(request->http, 404, "page not found");
    } else {
        evhttp_add_header(evhttp_request_get_output_headers(request->http), "Allow", allowed);
        reply_error(request->http, 405, "method not allowed");
    }
    return NULL;
}

/* --- sandbox traffic ------------------------------------------------------------------------------ */

/* Reads "<port>-<id>[-…]" from the first label of Host; false when it is something else. */
static bool read_host(const char *host, char *id, size_t id_size, int *port)
{
    char *dash;
    long number = strtol(host, &dash, 10);
    size_t length;

    if (dash == host || *dash != '-' || number < 1 || number > 65535)
        return false;
    length = strspn(dash + 1, "abcdefghijklmnopqrstuvwxyz0123456789");
    if (length == 0 || length >= id_size || strchr(".-:", dash[1 + length]) == NULL)
        return false;
    snprintf(id, id_size, "%.*s", (int)length, dash + 1);
    *port = (int)number;
    return true;
}

/* Whether the request is for a sandbox; fills its id and the port. */
static bool names_sandbox(struct request *request, int *port)
{
    const char *id = request_header(request, "E2b-Sandbox-Id");
    const char *port_text = request_header(request, "E2b-Sandbox-Port");
    const char *host = request_header(request, "Host");

    *port = ENVD_PORT;
    if (id != NULL) {
        snprintf(request->id, sizeof request->id, "%s", id);
        if (port_text != NULL)
            *port = atoi(port_text);
        return true;
    }
    return host != NULL && read_host(host, request->id, sizeof request->id, port);
}

/* Whether it is one of the signed URLs of SDKs, which name no sandbox: its token is the only one that fits. */
static bool is_signed_url(struct request *request, const char *path)
{
    return strcmp(path, "/files") == 0 && request_query(request, "signature") != NULL;
}

/* The proxy's answer to a path of the control plane. */
static bool answer_reserved(struct request *request, const char *path)
{
    for (size_t i = 0; i < COUNT(reserved_paths); i++) {
        if (strcmp(reserved_paths[i], path) != 0)
            continue;
        reply_json(request->http, 404,
                   json_pack("{s:s, s:s, s:i}", "message",
                             "This endpoint is reserved for the E2B control plane and is not reachable through the "
                             "sandbox URL",
                             "path", path, "code", 404));
        return true;
    }
    return false;
}

/* Checks the token; answers and returns false when it does not fit. */
static bool check_token(struct request *request, const struct route *route)
{
    const char *token = request_header(request, "X-Access-Token");

    if (route->own_token_check || request->sandbox->token[0] == '\0' ||
        (token != NULL && access_token_equal(token, request->sandbox->token)))
        return true;
    reply_error(request->http, 401,
                "unauthorized access, please provide a valid access token or method signing if supported");
    return false;
}

/* Checks the user of an Authorization header; answers and returns false when there is no such user. */
static bool check_user(struct request *request, const struct route *route)
{
    const char *authorization = request_header(request, "Authorization");
    char name[ACCESS_USER_MAX_BYTES];

    if (authorization == NULL || !access_basic_user(authorization, name) || access_user_exists(name))
        return true;
    if (route->kind == ROUTE_STREAM)
        reply_stream_error(request->http, RPC_UNAUTHENTICATED, "invalid username: '%s'", name);
    else
        reply_rpc_error(request->http, RPC_UNAUTHENTICATED, "invalid username: '%s'", name);
    return false;
}

/* Checks the content type of an RPC; answers and returns false when it is another. */
static bool check_type(struct request *request, const struct route *route)
{
    const char *wanted = route->kind == ROUTE_STREAM ? RPC_STREAM_TYPE : RPC_UNARY_TYPE;
    const char *given = request_header(request, "Content-Type");

    if (route->kind != ROUTE_STREAM && route->kind != ROUTE_UNARY)
        return true;
    if (given != NULL && strncasecmp(given, wanted, strlen(wanted)) == 0 &&
        (given[strlen(wanted)] == '\0' || given[strlen(wanted)] == ';'))
        return true;
    evhttp_add_header(evhttp_request_get_output_headers(request->http), "Accept-Post", wanted);
    reply_empty(request->http, 415);
    return false;
}

/* Whether it takes traffic, by which a paused one may be made to run again. */
static bool is_awake(struct sandbox *sandbox)
{
    return sandbox->state == SANDBOX_RUNNING || (sandbox->auto_resume && sandbox_resume(sandbox, sandbox->timeout_s));
}

static void dispatch_sandbox(struct request *request, const char *path, int port)
{
    const struct route *route;

    request->sandbox = sandbox_find(request->daemon->sandboxes, request->id);
    if (request->sandbox == NULL || !is_awake(request->sandbox)) {
        reply_no_sandbox(request->http, request->id);
        return;
    }
    if (port != ENVD_PORT) {
        reply_port_closed(request->http, request->id, port);
        return;
    }
    if (answer_reserved(request, path))
        return;
    route = find_route(request, envd_routes, COUNT(envd_routes), path);
    if (route != NULL && check_token(request, route) && check_user(request, route) && check_type(request, route))
        route->handler(request);
}

/* --- the API -------------------------------------------------------------------------------------- */

/* Finds the sandbox of an API path, "<id>" or "<id>-<client>"; answers and returns false when it is not there. */
static bool find_sandbox(struct request *request)
{
    char *dash = strchr(request->id, '-');

    if (request->id[strspn(request->id, "-abcdefghijklmnopqrstuvwxyz0123456789")] != '\0' ||
        (dash != NULL && strchr(dash + 1, '-') != NULL)) {
        reply_error(request->http, 400, "Invalid sandbox ID");
        return false;
    }
    if (dash != NULL)
        *dash = '\0';
    request->sandbox = sandbox_find(request->daemon->sandboxes, request->id);
    if (request->sandbox != NULL)
        return true;
    reply_no_such(request->http, request->id);
    return false;
}

/* Checks the API key, where one is asked for; answers and returns false when it is not taken. */
static bool check_key(struct request *request, const struct route *route, const struct api_keys *keys)
{
    const char *refusal = NULL;

    if (keys != NULL && !route->own_token_check)
        refusal = api_keys_refusal(keys, request_header(request, "X-API-KEY"));
    if (refusal != NULL)
        reply_error(request->http, 401, "%s", refusal);
    return refusal == NULL;
}

/* Finds the sandbox of a signed URL. */
static void dispatch_signed(struct request *request, const char *path)
{
    struct sandbox *sandbox = files_find_signed(request);

    if (sandbox == NULL) {
        reply_error(request->http, 401, "invalid signature");
        return;
    }
    strcpy(request->id, sandbox->id);
    dispatch_sandbox(request, path, ENVD_PORT);
}

static void dispatch_api(struct request *request, const char *path, const struct api_keys *keys)
{
    const struct route *route = find_route(request, api_routes, COUNT(api_routes), path);

    if (route == NULL || !check_key(request, route, keys))
        return;
    request->is_v2 = strncmp(path, "/v2/", 4) == 0;
    if (request->id[0] == '\0' || find_sandbox(request))
        route->handler(request);
}

/* --- evhttp --------------------------------------------------------------------------------------- */

/* Whether the body is not too large; answers when it is. */
static bool check_size(const struct request *request, size_t max)
{
    if (evbuffer_get_length(evhttp_request_get_input_buffer(request->http)) <= max)
        return true;
    reply_error(request->http, 413, "request body is larger than %zu bytes", max);
    return false;
}

static void handle(struct server *server, struct evhttp_request *http, struct intake *intake)
{
    struct request request = {.daemon = server->daemon, .http = http, .intake = intake};
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(http);
    const char *query = evhttp_uri_get_query(uri);
    const char *path = evhttp_uri_get_path(uri);
    bool is_api;
    int port;

    TAILQ_INIT(&request.query);
    is_api = !names_sandbox(&request, &port);
    if (!check_size(&request, is_api ? SERVER_API_BODY_MAX_BYTES : SERVER_RPC_BODY_MAX_BYTES))
        return;
    if (query != NULL && evhttp_parse_query_str(query, &request.query) < 0) {
        reply_error(http, 400, "malformed query");
        return;
    }
    path = path == NULL ? "" : path;
    log_debug("%s %s", evhttp_request_get_command(http) == EVHTTP_REQ_GET ? "GET" : "request", path);
    if (!is_api)
        dispatch_sandbox(&request, path, port);
    else if (is_signed_url(&request, path))
        dispatch_signed(&request, path);
    else
        dispatch_api(&request, path, server->keys);
    evhttp_clear_headers(&request.query);
}

static void on_request(struct evhttp_request *http, void *arg)
{
    struct server *server = arg;
    struct intake *intake = intake_begin(server->intakes, http);

    handle(server, http, intake);
    intake_finish(intake);
}

struct server *server_new(struct daemon *daemon, int listen_fd, const struct api_keys *keys)
{
    struct server *server = calloc(1, sizeof *server);

    if (server == NULL || (server->http = evhttp_new(daemon->base)) == NULL ||
        (server->intakes = intake_table_new(daemon->base, server->http)) == NULL ||
        evhttp_accept_socket(server->http, listen_fd) < 0) {
        server_free(server);
        return NULL;
    }
    server->daemon = daemon;
    server->keys = keys;
    evhttp_set_max_headers_size(server->http, HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(server->http, (ssize_t)(SERVER_RPC_BODY_MAX_BYTES + BODY_SLACK_BYTES));
    evhttp_set_default_content_type(server->http, NULL);
    evhttp_set_allowed_methods(server->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_DELETE | EVHTTP_REQ_PUT |
                                                 EVHTTP_REQ_PATCH | EVHTTP_REQ_HEAD | EVHTTP_REQ_OPTIONS);
    evhttp_set_gencb(server->http, on_request, server);
    return server;
}

void server_free(struct server *server)
{
    if (server == NULL)
        return;
    if (server->http != NULL)
        evhttp_free(server->http);
    intake_table_free(server->intakes);
    free(server);
}
