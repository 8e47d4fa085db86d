#include "sandboxd/endpoint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

/* Reads a port of 1 to 65535 that fills the text; false when it is none. */
static bool parse_port(const char *text, size_t length, uint16_t *port)
{
    unsigned value = 0;

    if (length == 0 || length > 5)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!isdigit((unsigned char)text[i]))
            return false;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    *port = (uint16_t)value;
    return value >= 1 && value <= UINT16_MAX;
}

/* Whether a byte may stand in a host name or an address. */
static bool is_host_byte(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '-' || c == '_' || c == ':';
}

bool endpoint_set_host(struct endpoint *endpoint, const char *text, size_t length)
{
    union address address;

    if (length == 0 || length > ENDPOINT_HOST_MAX_BYTES)
        return false;
    for (size_t i = 0; i < length; i++) {
        if (!is_host_byte(text[i]))
            return false;
        endpoint->host[i] = (char)tolower((unsigned char)text[i]);
    }
    endpoint->host[length] = '\0';
    if (!address_parse(endpoint->host, 0, &address))
        return strchr(endpoint->host, ':') == NULL;
    return inet_ntop(address.any.sa_family,
                     address.any.sa_family == AF_INET ? (const void *)&address.v4.sin_addr
                                                      : (const void *)&address.v6.sin6_addr,
                     endpoint->host, sizeof endpoint->host) != NULL;
}

bool endpoint_parse(const char *text, size_t length, struct endpoint *endpoint)
{
    const char *colon = memrchr(text, ':', length);
    size_t host_bytes;

    if (colon == NULL || !parse_port(colon + 1, length - (size_t)(colon + 1 - text), &endpoint->port))
        return false;
    host_bytes = (size_t)(colon - text);
    if (host_bytes >= 2 && text[0] == '[' && text[host_bytes - 1] == ']') {
        text++;
        host_bytes -= 2;
    } else if (memchr(text, ':', host_bytes) != NULL) {
        return false;
    }
    return endpoint_set_host(endpoint, text, host_bytes);
}

const struct endpoint *endpoint_find(const struct endpoint_list *list, const struct endpoint *wanted)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->entries[i].port == wanted->port && strcmp(list->entries[i].host, wanted->host) == 0)
            return &list->entries[i];
    }
    return NULL;
}

bool endpoint_address(const struct endpoint *endpoint, union address *address)
{
    return address_parse(endpoint->host, endpoint->port, address);
}

const struct endpoint *endpoint_find_address(const struct endpoint_list *list, const union address *wanted)
{
    union address address;

    for (size_t i = 0; i < list->count; i++) {
        if (endpoint_address(&list->entries[i], &address) && address_equal(&address, wanted))
            return &list->entries[i];
    }
    return NULL;
}

const char *endpoint_text(const struct endpoint *endpoint, char out[static ENDPOINT_TEXT_MAX_BYTES])
{
    bool is_v6 = strchr(endpoint->host, ':') != NULL;

    snprintf(out, ENDPOINT_TEXT_MAX_BYTES, "%s%s%s:%u", is_v6 ? "[" : "", endpoint->host, is_v6 ? "]" : "",
             endpoint->port);
    return out;
}

bool network_mode_parse(const char *text, enum network_mode *mode)
{
    *mode = strcmp(text, "none") == 0 ? NETWORK_NONE : NETWORK_INTERNET;
    return *mode == NETWORK_NONE || strcmp(text, "internet") == 0;
}

/* Fills an IPv4 loopback address; 0 when the host is none. */
static socklen_t loopback_v4(const struct endpoint *endpoint, struct sockaddr_in *address)
{
    const char *host = strcmp(endpoint->host, "localhost") == 0 ? "127.0.0.1" : endpoint->host;

    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(endpoint->port)};
    if (inet_pton(AF_INET, host, &address->sin_addr) != 1 || (ntohl(address->sin_addr.s_addr) >> 24) != 127)
        return 0;
    return sizeof *address;
}

/* Fills the IPv6 loopback address; 0 when the host is another. */
static socklen_t loopback_v6(const struct endpoint *endpoint, struct sockaddr_in6 *address)
{
    *address = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(endpoint->port)};
    if (inet_pton(AF_INET6, endpoint->host, &address->sin6_addr) != 1 || !IN6_IS_ADDR_LOOPBACK(&address->sin6_addr))
        return 0;
    return sizeof *address;
}

socklen_t endpoint_loopback_address(const struct endpoint *endpoint, struct sockaddr_storage *address)
{
    socklen_t length = loopback_v4(endpoint, (struct sockaddr_in *)address);

    return length != 0 ? length : loopback_v6(endpoint, (struct sockaddr_in6 *)address);
}
