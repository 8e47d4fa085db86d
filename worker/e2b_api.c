/*
 * The control API of the sandbox service: where it is, and create (e2b.md 0.4, http-api.md 6.2 and 6.3).
 */
#include "worker/e2b_call.h"
#include "worker/memory_watch.h"

#include "common/log.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define CREATE_TIMEOUT_MS    90000 /* the API itself gives up at 70 s */
#define API_ANSWER_MAX_BYTES (1u << 20)
#define LOCAL_URL            "http://localhost"
#define DEFAULT_DOMAIN       "e2b.app"

/* Domains that have the one shared host sandbox.<domain>: one name, one TLS host, pooled connections (e2b.md 0.6). */
static const char *const shared_host_domains[] = {"e2b.app", "e2b.dev", "e2b.pro", "e2b-staging.dev"};

/* --- the service ----------------------------------------------------------------------------------- */

static const char *value_or(const struct environment *environment, const char *name, const char *otherwise)
{
    const char *value = environment_value(environment, name);

    return value != NULL ? value : otherwise;
}

static struct e2b_service *service_new(const char *unix_socket, const char *api_url, const char *sandbox_url,
                                       const char *domain, const char *api_key)
{
    struct e2b_service *service = calloc(1, sizeof *service);

    if (service == NULL)
        return NULL;
    service->references = 1;
    service->unix_socket = unix_socket != NULL ? strdup(unix_socket) : NULL;
    service->api_url = strdup(api_url);
    service->sandbox_url = strdup(sandbox_url);
    service->domain = strdup(domain);
    service->api_key = strdup(api_key);
    if ((unix_socket != NULL && service->unix_socket == NULL) || service->api_url == NULL ||
        service->sandbox_url == NULL || service->domain == NULL || service->api_key == NULL) {
        e2b_service_unref(service);
        return NULL;
    }
    return service;
}

struct e2b_service *e2b_service_cloud(const struct environment *environment, const char *api_key)
{
    const char *domain = value_or(environment, "E2B_DOMAIN", DEFAULT_DOMAIN);
    struct e2b_service *service;
    char *api_url;

    if (asprintf(&api_url, "https://api.%s", domain) < 0)
        return NULL;
    service = service_new(NULL, value_or(environment, "E2B_API_URL", api_url),
                          value_or(environment, "E2B_SANDBOX_URL", ""), domain, api_key);
    free(api_url);
    return service;
}

struct e2b_service *e2b_service_local(const char *unix_socket)
{
    return service_new(unix_socket, LOCAL_URL, LOCAL_URL, "", "");
}

struct e2b_service *e2b_service_ref(struct e2b_service *service)
{
    service->references++;
    return service;
}

void e2b_service_unref(struct e2b_service *service)
{
    if (service == NULL || --service->references > 0)
        return;
    free(service->unix_socket);
    free(service->api_url);
    free(service->sandbox_url);
    free(service->domain);
    if (service->api_key != NULL)
        explicit_bzero(service->api_key, strlen(service->api_key));
    free(service->api_key);
    free(service);
}

/* The configured URL may end in slashes. */
static char *join_url(const char *base, const char *path)
{
    size_t length = strlen(base);
    char *url;

    while (length > 0 && base[length - 1] == '/')
        length--;
    return asprintf(&url, "%.*s%s", (int)length, base, path) < 0 ? NULL : url;
}

struct http_transfer *e2b_api_send(struct http_client *http, const struct e2b_service *service, const char *path,
                                   struct http_request *request)
{
    struct http_transfer *transfer = NULL;
    char *url = join_url(service->api_url, path);

    request->url = url;
    request->unix_socket = service->unix_socket;
    request->headers = NULL;
    if (url != NULL &&
        (request->body == NULL || http_add_header(&request->headers, "Content-Type", "application/json")) &&
        (*service->api_key == '\0' || http_add_header(&request->headers, "X-API-KEY", service->api_key)))
        transfer = http_client_send(http, request);
    free(url);
    return transfer;
}

/* --- the answer of create -------------------------------------------------------------------------- */

static char *sandbox_base_url(const struct e2b_service *service, const char *id, const char *domain)
{
    char *url = NULL;

    if (*service->sandbox_url != '\0')
        return strdup(service->sandbox_url);
    for (size_t i = 0; i < sizeof shared_host_domains / sizeof *shared_host_domains; i++) {
        if (strcmp(shared_host_domains[i], domain) == 0)
            return asprintf(&url, "https://sandbox.%s", domain) < 0 ? NULL : url;
    }
    return asprintf(&url, "https://49983-%s.%s", id, domain) < 0 ? NULL : url;
}

bool e2b_valid_sandbox_id(const char *id)
{
    size_t length = strlen(id);

    if (length == 0 || length > SANDBOX_ID_MAX_BYTES)
        return false;
    for (const char *c = id; *c != '\0'; c++) {
        if (!islower((unsigned char)*c) && !isdigit((unsigned char)*c))
            return false;
    }
    return true;
}

/* envd below 0.4.0 does not choose the user itself (e2b.md 0.4). */
static bool is_old_envd(const char *version)
{
    unsigned major, minor;

    return sscanf(version, "%u.%u", &major, &minor) == 2 && major == 0 && minor < 4;
}

/* NULL with *error when the answer is unusable. A domain that is no plain host name is refused: it becomes a URL. */
static struct e2b_sandbox *parse_sandbox(const struct e2b_service *service, const struct http_answer *answer,
                                         enum run_error *error)
{
    json_t *root = json_loadb(answer->body, answer->body_length, 0, NULL);
    const char *id = json_string_value(json_object_get(root, "sandboxID"));
    const char *token = json_string_value(json_object_get(root, "envdAccessToken"));
    const char *domain = json_string_value(json_object_get(root, "domain"));
    const char *version = json_string_value(json_object_get(root, "envdVersion"));
    struct e2b_sandbox *sandbox = NULL;

    *error = RUN_ERROR_UPSTREAM_PROTOCOL;
    if (id == NULL || !e2b_valid_sandbox_id(id))
        goto done;
    if (domain == NULL || *domain == '\0' ||
        domain[strspn(domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:")] != '\0')
        domain = service->domain;
    *error = RUN_ERROR_INTERNAL;
    sandbox = calloc(1, sizeof *sandbox);
    if (sandbox == NULL)
        goto done;
    memcpy(sandbox->id, id, strlen(id) + 1);
    sandbox->access_token = token != NULL ? strdup(token) : NULL;
    sandbox->base_url = sandbox_base_url(service, id, domain);
    sandbox->needs_user = version != NULL && is_old_envd(version);
    if (sandbox->base_url != NULL && (token == NULL || sandbox->access_token != NULL)) {
        *error = RUN_ERROR_NONE;
    } else {
        e2b_sandbox_free(sandbox);
        sandbox = NULL;
    }
done:
    json_decref(root);
    return sandbox;
}

void e2b_sandbox_free(struct e2b_sandbox *sandbox)
{
    if (sandbox == NULL)
        return;
    free(sandbox->access_token);
    free(sandbox->base_url);
    free(sandbox);
}

/* --- create ---------------------------------------------------------------------------------------- */

struct create {
    struct e2b_service *service;
    void (*on_created)(void *context, const struct e2b_result *result, struct e2b_sandbox *sandbox);
    void *context;
};

static void create_free(void *operation)
{
    struct create *create = operation;

    e2b_service_unref(create->service);
    free(create);
}

static void on_create_end(void *operation, const struct e2b_result *result, const struct http_answer *answer)
{
    struct create *create = operation;
    struct e2b_result unusable = e2b_failed(RUN_ERROR_NONE, "unusable answer to the creation of a sandbox");
    struct e2b_sandbox *sandbox;

    if (result->error != RUN_ERROR_NONE || answer == NULL) {
        create->on_created(create->context, result, NULL);
        return;
    }
    sandbox = parse_sandbox(create->service, answer, &unusable.error);
    if (sandbox == NULL) {
        unusable.fate_unknown = true;
        create->on_created(create->context, &unusable, NULL);
        return;
    }
    create->on_created(create->context, result, sandbox);
}

/* The body of http-api.md 6.3. */
static char *create_body(const struct e2b_create_request *request)
{
    json_t *root =
        json_pack("{s:s, s:I, s:O, s:{s:s, s:s}, s:b, s:b, s:b}", "templateID", request->template_id, "timeout",
                  (json_int_t)request->timeout_s, "envVars", request->env, "metadata", "request_id", request->run_id,
                  "sandstorm_instance", request->instance, "secure", 1, "allow_internet_access", 1, "autoPause", 0);
    char *body = root != NULL ? json_dumps_whole(root, JSON_COMPACT) : NULL;

    json_decref(root);
    return body;
}

struct e2b_call *e2b_create(const struct e2b_context *e2b, const struct e2b_create_request *request)
{
    struct create *create = calloc(1, sizeof *create);
    char *body = create_body(request);
    struct e2b_call_spec spec;

    if (create == NULL || body == NULL) {
        free(create);
        free(body);
        return NULL;
    }
    create->service = e2b_service_ref(e2b->service);
    create->on_created = request->on_created;
    create->context = request->context;
    spec = (struct e2b_call_spec){
        .stage = E2B_STAGE_CREATE,
        .counted_as = METRIC_OPERATION_CREATE,
        .method = "POST",
        .url = join_url(e2b->service->api_url, "/sandboxes"),
        .content_type = "application/json",
        .body = body,
        .body_length = strlen(body),
        .secrets = json_incref(request->env),
        .total_timeout_ms = CREATE_TIMEOUT_MS,
        .answer_max_bytes = API_ANSWER_MAX_BYTES,
        .retry_timeout_ms = request->retry_timeout_ms,
        .send_once = true,
        .on_end = on_create_end,
        .free_operation = create_free,
        .operation = create,
    };
    return e2b_call_new(e2b, &spec);
}

void e2b_create_abandon(struct e2b_call *call,
                        void (*on_created)(void *, const struct e2b_result *, struct e2b_sandbox *), void *context)
{
    struct create *create = e2b_call_operation(call);
    struct e2b_result nothing = e2b_failed(RUN_ERROR_NONE, "");

    create->on_created = on_created;
    create->context = context;
    if (e2b_call_abandon(call))
        return;
    nothing.fate_unknown = e2b_call_fate_unknown(call);
    e2b_call_cancel(call);
    on_created(context, &nothing, NULL);
}
