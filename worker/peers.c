#include "worker/peers.h"

#include "common/settings.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define PEER_UNIX "unix"

struct peers {
    bool all;
    bool unix_sockets;
    size_t count;
    struct in6_addr addresses[]; /* IPv4 as ::ffff:a.b.c.d */
};

/* False for what is no address. */
static bool parse(const char *text, struct in6_addr *address)
{
    struct in_addr ipv4;

    if (inet_pton(AF_INET, text, &ipv4) != 1)
        return inet_pton(AF_INET6, text, address) == 1;
    *address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    memcpy(&address->s6_addr[12], &ipv4, sizeof ipv4);
    return true;
}

struct peers *peers_new(const char *trusted)
{
    char item[INET6_ADDRSTRLEN + 16];
    struct peers *peers;
    size_t entries = 1;

    for (const char *at = trusted; *at != '\0'; at++)
        entries += *at == ',';
    peers = calloc(1, sizeof *peers + entries * sizeof *peers->addresses);
    while (peers != NULL && settings_list_next(&trusted, item, sizeof item)) {
        peers->all |= strcmp(item, "*") == 0;
        peers->unix_sockets |= strcmp(item, PEER_UNIX) == 0;
        peers->count += parse(item, &peers->addresses[peers->count]);
    }
    return peers;
}

void peers_free(struct peers *peers)
{
    free(peers);
}

void peers_name_ipv6(const struct in6_addr *address, char name[static INET6_ADDRSTRLEN])
{
    if (IN6_IS_ADDR_V4MAPPED(address))
        inet_ntop(AF_INET, &address->s6_addr[12], name, INET6_ADDRSTRLEN);
    else
        inet_ntop(AF_INET6, address, name, INET6_ADDRSTRLEN);
}

void peers_name(int fd, char name[static PEER_NAME_MAX_BYTES])
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    const struct sockaddr_in6 *ipv6 = (const struct sockaddr_in6 *)&address;
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)&address;
    socklen_t size = sizeof address;

    snprintf(name, PEER_NAME_MAX_BYTES, "unknown");
    if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
        return;
    if (address.ss_family == AF_INET)
        inet_ntop(AF_INET, &ipv4->sin_addr, name, PEER_NAME_MAX_BYTES);
    else if (address.ss_family == AF_INET6)
        peers_name_ipv6(&ipv6->sin6_addr, name);
    else if (address.ss_family == AF_UNIX)
        snprintf(name, PEER_NAME_MAX_BYTES, PEER_UNIX);
}

bool peers_trust(const struct peers *peers, const char *name)
{
    struct in6_addr address;

    if (peers->all || (peers->unix_sockets && strcmp(name, PEER_UNIX) == 0))
        return true;
    if (!parse(name, &address))
        return false;
    for (size_t i = 0; i < peers->count; i++) {
        if (memcmp(&peers->addresses[i], &address, sizeof address) == 0)
            return true;
    }
    return false;
}

void peers_client(const struct peers *peers, const struct peer *peer, struct span forwarded_for,
                  char name[static PEER_NAME_MAX_BYTES])
{
    struct span piece;

    memcpy(name, peer->name, sizeof peer->name);
    if (!peers_trust(peers, name))
        return;
    /* From the left: each untrusted address replaces what stands left of it. Only addresses are taken. */
    for (bool first = true; span_next(&forwarded_for, ',', &piece); first = false) {
        char text[PEER_NAME_MAX_BYTES];
        struct in6_addr address;

        piece = span_trim(piece);
        snprintf(text, sizeof text, "%.*s", (int)piece.length, piece.bytes);
        if (parse(text, &address) && (first || !peers_trust(peers, text)))
            memcpy(name, text, sizeof text);
    }
}
