#include "worker/reception.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/log_limit.h"
#include "common/metrics.h"
#include "worker/auth.h"
#include "worker/cors.h"
#include "worker/early_answer.h"
#include "worker/router.h"

#include <stdlib.h>

struct reception {
    struct auth auth;
    struct cors *cors;
    struct peers *proxies;
    const struct route *routes;
    void *context;
};

/* One request at the desk. */
struct visit {
    struct reception *reception;
    const struct request_head *head;
    const struct peer *peer;
    struct evbuffer *output;
    struct evbuffer *fields; /* header lines of the answer */
    struct router_match match;
    struct admission admission;
};

struct reception *reception_new(const struct settings *settings, const struct route *routes, void *context)
{
    struct reception *reception = calloc(1, sizeof *reception);

    if (reception == NULL)
        return NULL;
    auth_init(&reception->auth, settings->api_key, settings->api_key_previous);
    reception->cors = cors_new(settings->cors_origins);
    reception->proxies = peers_new(settings->trusted_proxies);
    reception->routes = routes;
    reception->context = context;
    if (reception->cors != NULL && reception->proxies != NULL)
        return reception;
    reception_free(reception);
    return NULL;
}

void reception_free(struct reception *reception)
{
    if (reception == NULL)
        return;
    cors_free(reception->cors);
    peers_free(reception->proxies);
    free(reception);
}

/* --- answering ---------------------------------------------------------------------------------------- */

static void add_cors(struct visit *visit)
{
    struct cors_field fields[CORS_FIELDS_MAX];
    size_t count = cors_fields(visit->admission.allow_origin, fields);

    for (size_t i = 0; i < count; i++)
        evbuffer_add_printf(visit->fields, "%s: %s\r\n", fields[i].name, fields[i].value);
}

static void send_answer(struct visit *visit, const struct early_answer *answer)
{
    visit->admission.status = answer->status;
    early_answer_write(visit->output, answer);
}

static void write_text(struct visit *visit, int status, const char *key, const char *text)
{
    char body[96];

    snprintf(body, sizeof body, "{\"%s\":\"%s\"}", key, text);
    add_cors(visit);
    send_answer(visit,
                &(struct early_answer){
                    .status = status, .head_only = visit->admission.head_only, .body = body, .fields = visit->fields});
}

static void write_detail(struct visit *visit, int status, const char *detail)
{
    write_text(visit, status, "detail", detail);
}

const char *reception_client(const struct admission *admission, const struct peer *peer)
{
    return *admission->forwarded_for != '\0' ? admission->forwarded_for : peer->name;
}

#define REFUSAL(status)                                                                                                \
    {                                                                                                                  \
        (status),                                                                                                      \
        {                                                                                                              \
            .level = LOG_LEVEL_INFO, .like = "request refused: " #status                                               \
        }                                                                                                              \
    }

/* A flood of one kind hides none of another. */
static bool may_log(int status)
{
    static struct {
        int status;
        struct log_limit limit;
    } kinds[] = {REFUSAL(400), REFUSAL(401), REFUSAL(408), REFUSAL(413), REFUSAL(414),
                 REFUSAL(417), REFUSAL(431), REFUSAL(503), REFUSAL(0)};
    size_t i = 0;

    while (kinds[i].status != status && kinds[i].status != 0)
        i++;
    return log_limit_allows(&kinds[i].limit, monotonic_ms());
}

void reception_log_refusal(const struct admission *admission, const struct peer *peer, int status, const char *reason)
{
    if (!may_log(status))
        return;
    log_info("request refused: %d %s, client %s", status, reason, reception_client(admission, peer));
}

static void refuse(struct visit *visit, int status, const char *detail)
{
    reception_log_refusal(&visit->admission, visit->peer, status, detail);
    write_detail(visit, status, detail);
}

static void add_retry_after(struct evbuffer *fields)
{
    char seconds[RETRY_AFTER_BUFFER];

    retry_after(seconds);
    evbuffer_add_printf(fields, "Retry-After: %s\r\n", seconds);
}

/* Answers outside of evhttp. */
static void refuse_outside(const struct admission *admission, int status, const char *detail, const struct peer *peer,
                           struct evbuffer *output)
{
    struct visit visit = {.output = output, .fields = evbuffer_new(), .admission = *admission};

    reception_log_refusal(admission, peer, status, detail);
    if (visit.fields == NULL)
        return;
    if (status == 503)
        add_retry_after(visit.fields);
    write_detail(&visit, status, detail);
    evbuffer_free(visit.fields);
}

void reception_refuse(const struct admission *admission, int status, const struct peer *peer, struct evbuffer *output)
{
    static const struct {
        int status;
        const char *detail;
    } details[] = {{400, "Bad Request"},
                   {408, "Request timeout"},
                   {413, "Request body too large"},
                   {414, "URI too long"},
                   {431, "Request header fields too large"},
                   {503, "Server busy"}};
    size_t i = 0;

    while (details[i].status != status)
        i++;
    if (status == 503)
        metrics_count(METRIC_ADMISSION_REJECTED, NULL, METRIC_REJECTED_BODY_MEMORY, 1);
    refuse_outside(admission, status, details[i].detail, peer, output);
}

bool reception_trusts(const struct reception *reception, const char *peer)
{
    return peers_trust(reception->proxies, peer);
}

void reception_refuse_plain(const struct peer *peer, struct evbuffer *output)
{
    refuse_outside(&(struct admission){.status = 0}, 400, "Plain HTTP where HTTPS is served", peer, output);
}

/* --- the checks, in their order ------------------------------------------------------------------------ */

/* May the value be copied into an answer? */
static bool is_clean(struct span value)
{
    for (size_t i = 0; i < value.length; i++) {
        if ((unsigned char)value.bytes[i] < 0x20 || value.bytes[i] == 0x7f)
            return false;
    }
    return true;
}

static bool is_preflight(const struct request_head *head)
{
    return span_is(head->method, "OPTIONS") && head->fields[GUARD_FIELD_ORIGIN].bytes != NULL &&
           head->fields[GUARD_FIELD_WANTED_METHOD].bytes != NULL;
}

static void answer_preflight(struct visit *visit)
{
    const struct span *fields = visit->head->fields;
    const struct cors_preflight preflight = {.origin = fields[GUARD_FIELD_ORIGIN],
                                             .method = fields[GUARD_FIELD_WANTED_METHOD],
                                             .headers = fields[GUARD_FIELD_WANTED_HEADERS],
                                             .private_network = fields[GUARD_FIELD_WANTED_PRIVATE_NETWORK]};
    char body[CORS_BODY_MAX_BYTES];
    int status = cors_answer_preflight(visit->reception->cors, &preflight, visit->fields, body);

    send_answer(visit, &(struct early_answer){.status = status,
                                              .content_type = "text/plain; charset=utf-8",
                                              .body = body,
                                              .fields = visit->fields});
}

/* How many bytes at the beginning are of the set. */
static size_t leading(struct span text, const char *set)
{
    size_t count = 0;

    while (count < text.length && text.bytes[count] != '\0' && strchr(set, text.bytes[count]) != NULL)
        count++;
    return count;
}

/* host or host:port, with nothing that could mean something else inside a URL. */
static bool is_plain_host(struct span host)
{
    static const char names[] = "0123456789-._ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    static const char ipv6[] = "0123456789abcdefABCDEF:.";
    size_t name, digits;

    if (host.length > 0 && *host.bytes == '[') {
        name = 1 + leading((struct span){host.bytes + 1, host.length - 1}, ipv6);
        if (name == 1 || name == host.length || host.bytes[name++] != ']')
            return false;
    } else {
        name = leading(host, names);
    }
    if (name == 0 || name == host.length)
        return name > 0;
    digits = leading((struct span){host.bytes + name + 1, host.length - name - 1}, "0123456789");
    return host.bytes[name] == ':' && digits >= 1 && digits <= 5 && name + 1 + digits == host.length;
}

/* One slash too many: to the same path without it, as the client sees this server. */
static void redirect(struct visit *visit)
{
    const struct span *fields = visit->head->fields;
    struct span path = visit->match.path, query = visit->match.query, host = fields[GUARD_FIELD_HOST];
    const char *scheme = visit->peer->is_tls ? "https" : "http";

    if (peers_trust(visit->reception->proxies, visit->peer->name)) {
        if (span_is_caseless(fields[GUARD_FIELD_FORWARDED_PROTO], "https"))
            scheme = "https";
        if (fields[GUARD_FIELD_FORWARDED_HOST].bytes != NULL)
            host = fields[GUARD_FIELD_FORWARDED_HOST];
    }
    evbuffer_add_printf(visit->fields, "Location: ");
    if (is_plain_host(host))
        evbuffer_add_printf(visit->fields, "%s://%.*s", scheme, (int)host.length, host.bytes);
    evbuffer_add(visit->fields, path.bytes, path.length - 1);
    if (query.bytes != NULL)
        evbuffer_add_printf(visit->fields, "?%.*s", (int)query.length, query.bytes);
    evbuffer_add_printf(visit->fields, "\r\n");
    add_cors(visit);
    send_answer(visit, &(struct early_answer){.status = 307, .body = "", .fields = visit->fields});
}

static bool method_fits(const struct route *route, struct span method)
{
    if (route->method == EVHTTP_REQ_GET)
        return span_is(method, "GET") || span_is(method, "HEAD");
    return span_is(method, "POST");
}

/* (3) */
static bool find_route(struct visit *visit)
{
    const struct route *route;

    switch (router_match(visit->reception->routes, visit->head->target, &visit->match)) {
    case ROUTER_NO_TARGET:
        refuse(visit, 400, "Bad Request");
        return false;
    case ROUTER_UNKNOWN:
        write_detail(visit, 404, "Not Found");
        return false;
    case ROUTER_SLASH:
        redirect(visit);
        return false;
    case ROUTER_FOUND:
        break;
    default:
        log_panic("reception: unknown result of the router");
    }
    route = visit->match.route;
    if (method_fits(route, visit->head->method))
        return true;
    evbuffer_add_printf(visit->fields, "Allow: %s\r\n", route->method == EVHTTP_REQ_GET ? "GET" : "POST");
    write_detail(visit, 405, "Method Not Allowed");
    return false;
}

/* (4) */
static bool is_authorised(struct visit *visit)
{
    const struct route *route = visit->match.route;
    enum auth_result result = AUTH_OK;

    if (route->guarded || (route->guarded_by_query != NULL && route->guarded_by_query(visit->match.query)))
        result = auth_check(&visit->reception->auth, visit->head->fields[GUARD_FIELD_AUTHORIZATION]);
    if (result == AUTH_OK)
        return true;
    metrics_count(METRIC_ERRORS, "auth", 0, 1);
    evbuffer_add_printf(visit->fields, "WWW-Authenticate: Bearer\r\n");
    refuse(visit, 401, result == AUTH_MISSING ? "Not authenticated" : "Invalid authentication credentials");
    return false;
}

/* Of a trigger (http-api.md section 14). */
static bool knows_secret(struct visit *visit)
{
    static const char text[] = "invalid trigger secret";
    struct span secret = visit->match.route->secret, given = visit->head->fields[GUARD_FIELD_TRIGGER_SECRET];

    if (secret.bytes == NULL || (given.bytes != NULL && auth_equal(given, secret)))
        return true;
    metrics_count(METRIC_ERRORS, "auth", 0, 1);
    reception_log_refusal(&visit->admission, visit->peer, 401, text);
    write_text(visit, 401, "error", text);
    return false;
}

/* (5) */
static bool is_open(struct visit *visit)
{
    const struct route *route = visit->match.route;

    if (route->is_stopping == NULL || !route->is_stopping(visit->reception->context))
        return true;
    metrics_count(METRIC_ADMISSION_REJECTED, NULL, METRIC_REJECTED_STOPPING, 1);
    add_retry_after(visit->fields);
    refuse(visit, 503, "Server is shutting down");
    return false;
}

static bool check(struct visit *visit)
{
    const struct span *fields = visit->head->fields;

    if (!is_clean(fields[GUARD_FIELD_ORIGIN]) ||
        (is_preflight(visit->head) && !is_clean(fields[GUARD_FIELD_WANTED_HEADERS]))) {
        refuse(visit, 400, "Bad Request");
        return false;
    }
    if (is_preflight(visit->head)) {
        answer_preflight(visit);
        return false;
    }
    visit->admission.allow_origin = cors_allow_origin(visit->reception->cors, fields[GUARD_FIELD_ORIGIN]);
    if (!find_route(visit) || !is_authorised(visit) || !knows_secret(visit) || !is_open(visit))
        return false;
    if (fields[GUARD_FIELD_EXPECT].bytes == NULL || span_is_caseless(fields[GUARD_FIELD_EXPECT], "100-continue"))
        return true;
    refuse(visit, 417, "Expectation Failed");
    return false;
}

struct admission reception_admit(struct reception *reception, const struct request_head *head, const struct peer *peer,
                                 struct evbuffer *output)
{
    struct visit visit = {.reception = reception, .head = head, .peer = peer, .output = output};

    visit.admission.head_only = span_is(head->method, "HEAD");
    if (head->fields[GUARD_FIELD_FORWARDED_FOR].bytes != NULL)
        peers_client(reception->proxies, peer, head->fields[GUARD_FIELD_FORWARDED_FOR], visit.admission.forwarded_for);
    visit.fields = evbuffer_new();
    if (visit.fields == NULL)
        return visit.admission; /* the connection ends without an answer */
    if (check(&visit))
        visit.admission.route = visit.match.route;
    evbuffer_free(visit.fields);
    return visit.admission;
}
