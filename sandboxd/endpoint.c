#include "sandboxd/endpoint.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
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
    if (host_bytes == 0 || host_bytes > ENDPOINT_HOST_MAX_BYTES)
        return false;
    for (size_t i = 0; i < host_bytes; i++) {
        if (!is_host_byte(text[i]))
            return false;
        endpoint->host[i] = (char)tolower((unsigned char)text[i]);
    }
    endpoint->host[host_bytes] = '\0';
    return true;
}

const struct endpoint *endpoint_find(const struct endpoint_list *list, const struct endpoint *wanted)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->entries[i].port == wanted->port && strcmp(list->entries[i].host, wanted->host) == 0)
            return &list->entries[i];
    }
    return NULL;
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

enum connect_head_result connect_head_parse(const char *bytes, size_t length, struct endpoint *target,
                                            size_t *head_bytes)
{
    static const char method[] = "CONNECT ";
    const size_t method_bytes = sizeof method - 1;
    const char *end = memmem(bytes, length, "\r\n\r\n", 4);
    const char *line_end = memmem(bytes, length, "\r\n", 2);
    const char *space;

    /* A wrong first word is told at once: a client that speaks plain HTTP to us may be waiting for an answer. */
    if (memcmp(bytes, method, length < method_bytes ? length : method_bytes) != 0)
        return CONNECT_HEAD_BAD;
    if (end == NULL)
        return CONNECT_HEAD_INCOMPLETE;
    bytes += method_bytes;
    space = memchr(bytes, ' ', (size_t)(line_end - bytes));
    if (space == NULL || line_end - space != (ptrdiff_t)strlen(" HTTP/1.1") || memcmp(space, " HTTP/1.", 8) != 0 ||
        !endpoint_parse(bytes, (size_t)(space - bytes), target))
        return CONNECT_HEAD_BAD;
    *head_bytes = (size_t)(end + 4 - (bytes - method_bytes));
    return CONNECT_HEAD_OK;
}
