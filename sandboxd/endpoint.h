/*
 * endpoint: the network that sandboxes have (--network), and the endpoints the operator allows them (--network-allow).
 *
 * Pure text and addresses: nothing here opens a socket.
 */
#ifndef SANDBOXD_ENDPOINT_H
#define SANDBOXD_ENDPOINT_H

#include "sandboxd/address.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ENDPOINT_HOST_MAX_BYTES 254
#define ENDPOINTS_MAX           16

/* A host (a name in lower case, an IPv4 or IPv6 address without brackets in its one spelling) and a port. */
struct endpoint {
    char host[ENDPOINT_HOST_MAX_BYTES + 1];
    uint16_t port;
};

/* Endpoints that sandboxes may reach whatever they are. */
struct endpoint_list {
    size_t count;
    struct endpoint entries[ENDPOINTS_MAX];
};

enum network_mode {
    NETWORK_NONE,     /* the allowed endpoints and nothing else */
    NETWORK_INTERNET, /* these and all public addresses */
};

/* What the sandboxes of one daemon reach. */
struct network {
    enum network_mode mode;
    struct endpoint_list allowed;
};

/* Reads "none" or "internet". */
bool network_mode_parse(const char *text, enum network_mode *mode) __attribute__((warn_unused_result));

/* Takes the host from length bytes; false when it is none. The port stays. */
bool endpoint_set_host(struct endpoint *endpoint, const char *text, size_t length) __attribute__((warn_unused_result));

/* Reads "host:port" or "[v6]:port" from length bytes; false when it is neither. */
bool endpoint_parse(const char *text, size_t length, struct endpoint *endpoint) __attribute__((warn_unused_result));

/* The entry equal to the endpoint, or NULL. */
const struct endpoint *endpoint_find(const struct endpoint_list *list, const struct endpoint *wanted);

/* The entry that is this address and port, or NULL. */
const struct endpoint *endpoint_find_address(const struct endpoint_list *list, const union address *wanted);

/* Whether the host is an address, which is then filled. */
bool endpoint_address(const struct endpoint *endpoint, union address *address) __attribute__((warn_unused_result));

/* "host:port", with brackets around an IPv6 address. Returns out. */
#define ENDPOINT_TEXT_MAX_BYTES (ENDPOINT_HOST_MAX_BYTES + sizeof "[]:65535")
const char *endpoint_text(const struct endpoint *endpoint, char out[static ENDPOINT_TEXT_MAX_BYTES]);

/* The address a sandbox's init listens on in place of a loopback endpoint; 0 when the endpoint is not on loopback. */
socklen_t endpoint_loopback_address(const struct endpoint *endpoint, struct sockaddr_storage *address);

#endif
