/*
 * endpoint: the addresses a sandbox may reach (--network-allow), and the head of a CONNECT request that asks for one.
 *
 * Pure text and addresses: nothing here opens a socket.
 */
#ifndef SANDBOXD_ENDPOINT_H
#define SANDBOXD_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define ENDPOINT_HOST_MAX_BYTES 254
#define ENDPOINTS_MAX           16

/* A host (name, IPv4 or IPv6 address without brackets, lower case) and a port. */
struct endpoint {
    char host[ENDPOINT_HOST_MAX_BYTES + 1];
    uint16_t port;
};

/* What sandboxes may reach; nothing else. */
struct endpoint_list {
    size_t count;
    struct endpoint entries[ENDPOINTS_MAX];
};

/* Reads "host:port" or "[v6]:port" from length bytes; false when it is neither. */
bool endpoint_parse(const char *text, size_t length, struct endpoint *endpoint) __attribute__((warn_unused_result));

/* The entry equal to the endpoint, or NULL. */
const struct endpoint *endpoint_find(const struct endpoint_list *list, const struct endpoint *wanted);

/* The address a sandbox's init listens on in place of a loopback endpoint; 0 when the endpoint is not on loopback. */
socklen_t endpoint_loopback_address(const struct endpoint *endpoint, struct sockaddr_storage *address);

enum connect_head_result {
    CONNECT_HEAD_OK,
    CONNECT_HEAD_INCOMPLETE, /* no empty line yet */
    CONNECT_HEAD_BAD,        /* not a CONNECT request */
};

/*
 * Reads an HTTP CONNECT head from the first length bytes of a connection. On OK *target is filled and *head_bytes is
 * the length of the head, the empty line included; what follows belongs to the tunnel.
 */
enum connect_head_result connect_head_parse(const char *bytes, size_t length, struct endpoint *target,
                                            size_t *head_bytes) __attribute__((warn_unused_result));

#endif
