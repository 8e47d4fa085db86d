/* A sandbox's network: what its create says of it, what init listens on, and what tells programs of the proxy. */
#include "sandboxd/sandbox_internal.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define PROXY_URL        "http://127.0.0.1:3128"
#define PROXY_EXCEPTIONS "localhost,127.0.0.1,::1"

/* The variables that programs look for: both spellings, for each of them some know one only. */
static const struct {
    const char *name, *value;
} proxy_variables[] = {
    {"HTTP_PROXY", PROXY_URL},
    {"http_proxy", PROXY_URL},
    {"HTTPS_PROXY", PROXY_URL},
    {"https_proxy", PROXY_URL},
    {"ALL_PROXY", PROXY_URL},
    {"all_proxy", PROXY_URL},
    {"NO_PROXY", PROXY_EXCEPTIONS},
    {"no_proxy", PROXY_EXCEPTIONS},
    /* Node's own fetch and http look at the others only if this says so (from 22.21 and 24 on). */
    {"NODE_USE_ENV_PROXY", "1"},
};

/* Sends one order to listen. */
static void order_listen(struct sandbox *sandbox, unsigned listener, const void *address, socklen_t length)
{
    struct control_message order = {.header = {.kind = CONTROL_LISTEN, .tag = listener}, .payload_bytes = length};

    memcpy(order.payload, address, length);
    channel_send(sandbox->private->channel, &order);
}

void sandbox_order_listeners(struct sandbox *sandbox)
{
    const struct network *network = sandbox->table->network;
    const struct endpoint_list *allowed = &network->allowed;
    struct sockaddr_in proxy = {
        .sin_family = AF_INET, .sin_port = htons(SANDBOX_PROXY_PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    if (network->mode == NETWORK_INTERNET || allowed->count > 0)
        order_listen(sandbox, SANDBOX_PROXY_LISTENER, &proxy, sizeof proxy);
    for (unsigned i = 0; i < allowed->count; i++) {
        struct sockaddr_storage address;
        socklen_t length = endpoint_loopback_address(&allowed->entries[i], &address);

        if (length != 0)
            order_listen(sandbox, i + 1, &address, length);
    }
}

/* Whether anything is reached through the proxy: a loopback endpoint is at its own address. */
static bool needs_proxy(const struct sandbox *sandbox)
{
    const struct endpoint_list *allowed = &sandbox->table->network->allowed;
    struct sockaddr_storage address;

    if (sandbox->has_internet)
        return true;
    for (size_t i = 0; i < allowed->count; i++) {
        if (endpoint_loopback_address(&allowed->entries[i], &address) == 0)
            return true;
    }
    return false;
}

int sandbox_add_proxy_envs(const struct sandbox *sandbox, json_t *envs)
{
    if (!needs_proxy(sandbox))
        return 0;
    for (size_t i = 0; i < sizeof proxy_variables / sizeof *proxy_variables; i++) {
        if (json_object_set_new(envs, proxy_variables[i].name, json_string(proxy_variables[i].value)) < 0)
            return -1;
    }
    return 0;
}

bool sandbox_wish_network(struct sandbox_wish *wish, const json_t *create, char error[static EGRESS_ERROR_MAX_BYTES])
{
    const json_t *access = json_object_get(create, "allow_internet_access");
    const json_t *network = json_object_get(create, "network");
    struct egress *rules;

    if (access != NULL && !json_is_null(access) && !json_is_boolean(access)) {
        snprintf(error, EGRESS_ERROR_MAX_BYTES, "allow_internet_access must be a boolean");
        return false;
    }
    rules = egress_new(network, error);
    wish->without_internet = json_is_false(access);
    wish->network = json_is_object(network) ? network : NULL;
    egress_free(rules);
    return rules != NULL;
}

void sandbox_describe_network(const struct sandbox *sandbox, json_t *detail)
{
    json_object_set_new(detail, "allowInternetAccess", json_boolean(sandbox->has_internet));
    if (sandbox->network != NULL)
        json_object_set(detail, "network", sandbox->network);
}
