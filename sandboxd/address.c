#include "sandboxd/address.h"

#include <arpa/inet.h>
#include <string.h>

/* A range of IPv4: addresses that agree with the network in the first bits. */
static const struct {
    uint32_t network;
    unsigned bits;
    const char *what;
} ranges_v4[] = {
    {0x00000000, 8, "an address of this machine (0.0.0.0/8)"},   {0x0a000000, 8, "a private address (10.0.0.0/8)"},
    {0x64400000, 10, "a private address (100.64.0.0/10)"},       {0x7f000000, 8, "the host's loopback (127.0.0.0/8)"},
    {0xa83f8110, 32, "cloud metadata (168.63.129.16)"},          {0xa9fea9fe, 32, "cloud metadata (169.254.169.254)"},
    {0xa9fe0000, 16, "a link-local address (169.254.0.0/16)"},   {0xac100000, 12, "a private address (172.16.0.0/12)"},
    {0xc0000000, 24, "a reserved address (192.0.0.0/24)"},       {0xc0a80000, 16, "a private address (192.168.0.0/16)"},
    {0xc6120000, 15, "a private address (198.18.0.0/15)"},       {0xe0000000, 4, "a multicast address (224.0.0.0/4)"},
    {0xffffffff, 32, "the broadcast address (255.255.255.255)"}, {0xf0000000, 4, "a reserved address (240.0.0.0/4)"},
};

/* The same of IPv6. What is not in 2000::/3 is not given out, but for NAT64's 64:ff9b::/96. */
static const struct {
    unsigned char network[16];
    unsigned bits;
    const char *what;
} ranges_v6[] = {
    {{0}, 128, "an address of this machine (::)"},
    {{[15] = 1}, 128, "the host's loopback (::1)"},
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, "a private address (64:ff9b:1::/48)"},
    {{0x20, 0x01, 0x00, 0x00}, 32, "a tunnel's address (2001::/32)"},
    {{0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54}, 128, "cloud metadata (fd00:ec2::254)"},
    {{0xfc}, 7, "a private address (fc00::/7)"},
    {{0xfe, 0x80}, 10, "a link-local address (fe80::/10)"},
    {{0xfe, 0xc0}, 10, "a private address (fec0::/10)"},
    {{0xff}, 8, "a multicast address (ff00::/8)"},
};

static const unsigned char global_unicast[16] = {0x20};
static const unsigned char nat64[16] = {0x00, 0x64, 0xff, 0x9b};
static const unsigned char relay_6to4[16] = {0x20, 0x02};

#define COUNT(table) (sizeof(table) / sizeof *(table))

/* Whether two addresses agree in their first bits. */
static bool has_prefix(const unsigned char *address, const unsigned char *network, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;

    if (memcmp(address, network, whole) != 0)
        return false;
    return rest == 0 || ((address[whole] ^ network[whole]) >> (8 - rest)) == 0;
}

bool address_parse(const char *text, uint16_t port, union address *address)
{
    *address = (union address){.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    if (inet_pton(AF_INET6, text, &address->v6.sin6_addr) == 1)
        return true;
    *address = (union address){.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
    return inet_pton(AF_INET, text, &address->v4.sin_addr) == 1;
}

/* Makes the IPv4 address of the four bytes, with the port of the IPv6 address. */
static void set_v4(union address *v4, const unsigned char *bytes, in_port_t port)
{
    *v4 = (union address){.v4 = {.sin_family = AF_INET, .sin_port = port}};
    memcpy(&v4->v4.sin_addr, bytes, sizeof v4->v4.sin_addr);
}

void address_unmap(union address *address)
{
    const struct sockaddr_in6 mapped = address->v6;

    if (address->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&mapped.sin6_addr))
        set_v4(address, mapped.sin6_addr.s6_addr + 12, mapped.sin6_port);
}

bool address_embedded(const union address *address, union address *v4)
{
    const unsigned char *bytes = address->v6.sin6_addr.s6_addr;

    if (address->any.sa_family != AF_INET6)
        return false;
    if (IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr) || has_prefix(bytes, nat64, 96))
        set_v4(v4, bytes + 12, address->v6.sin6_port);
    else if (has_prefix(bytes, relay_6to4, 16))
        set_v4(v4, bytes + 2, address->v6.sin6_port);
    else
        return false;
    return true;
}

static const char *not_public_v4(const struct in_addr *address)
{
    uint32_t number = ntohl(address->s_addr);

    for (size_t i = 0; i < COUNT(ranges_v4); i++) {
        if ((number ^ ranges_v4[i].network) >> (32 - ranges_v4[i].bits) == 0)
            return ranges_v4[i].what;
    }
    return NULL;
}

static const char *not_public_v6(const struct in6_addr *address)
{
    for (size_t i = 0; i < COUNT(ranges_v6); i++) {
        if (has_prefix(address->s6_addr, ranges_v6[i].network, ranges_v6[i].bits))
            return ranges_v6[i].what;
    }
    return has_prefix(address->s6_addr, global_unicast, 3) ? NULL : "a reserved address (outside 2000::/3)";
}

const char *address_not_public(const union address *address)
{
    union address v4;

    if (address->any.sa_family == AF_INET)
        return not_public_v4(&address->v4.sin_addr);
    if (address->any.sa_family != AF_INET6)
        return "no address of the internet";
    return address_embedded(address, &v4) ? not_public_v4(&v4.v4.sin_addr) : not_public_v6(&address->v6.sin6_addr);
}

bool address_has_prefix(const union address *address, const union address *network, unsigned bits)
{
    if (address->any.sa_family == AF_INET)
        return has_prefix((const unsigned char *)&address->v4.sin_addr, (const unsigned char *)&network->v4.sin_addr,
                          bits);
    return has_prefix(address->v6.sin6_addr.s6_addr, network->v6.sin6_addr.s6_addr, bits);
}

bool address_equal(const union address *a, const union address *b)
{
    if (a->any.sa_family != b->any.sa_family)
        return false;
    if (a->any.sa_family == AF_INET)
        return a->v4.sin_port == b->v4.sin_port && a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
    return a->v6.sin6_port == b->v6.sin6_port && IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr);
}

socklen_t address_length(const union address *address)
{
    return address->any.sa_family == AF_INET ? sizeof address->v4 : sizeof address->v6;
}
