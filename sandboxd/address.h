/*
 * address: what kind of address one is. The internet of a sandbox is made of the public ones only.
 *
 * Pure: the ranges are those of IANA's special-purpose registries (RFC 6890) and what clouds put beside them. What
 * belongs to this machine is reach.h's question.
 */
#ifndef SANDBOXD_ADDRESS_H
#define SANDBOXD_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* An address and a port of TCP. */
union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Reads an IPv4 or IPv6 address, without brackets or zone; false when it is none. */
bool address_parse(const char *text, uint16_t port, union address *address) __attribute__((warn_unused_result));

/* An IPv4-mapped IPv6 address becomes the IPv4 address it is to the kernel; others stay. */
void address_unmap(union address *address);

/* The IPv4 address that a translator or relay would deliver this IPv6 address to (NAT64, 6to4, mapped); or false. */
bool address_embedded(const union address *address, union address *v4) __attribute__((warn_unused_result));

/* What an address is that is not public, in words for a person ("a private address (10.0.0.0/8)"); NULL: public. */
const char *address_not_public(const union address *address);

/* Whether two addresses of one family agree in their first bits. */
bool address_has_prefix(const union address *address, const union address *network, unsigned bits);

bool address_equal(const union address *a, const union address *b);
socklen_t address_length(const union address *address);

#endif
