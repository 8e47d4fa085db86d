/*
 * peers: who is at the other end of a connection, and whose X-Forwarded headers count (setting trusted_proxies).
 */
#ifndef WORKER_PEERS_H
#define WORKER_PEERS_H

#include "worker/span.h"

#include <netinet/in.h>
#include <stdbool.h>

/* An address as text; also room for a forwarded name made fit for a log. */
#define PEER_NAME_MAX_BYTES 64

/* Who is at the other end of a connection. */
struct peer {
    char name[PEER_NAME_MAX_BYTES]; /* "": not known yet */
    bool is_tls;
};

struct peers; /* the trusted ones */

/* A list of addresses and "unix", or *. Anything else never matches. NULL for lack of memory. */
struct peers *peers_new(const char *trusted) __attribute__((warn_unused_result));
void peers_free(struct peers *peers);

/* IPv4 peers of an IPv6 socket are named, and trusted, as IPv4; "unix"; "unknown" when the connection is gone. */
void peers_name(int fd, char name[static PEER_NAME_MAX_BYTES]);
/* An IPv6 address; what was mapped into it as IPv4. */
void peers_name_ipv6(const struct in6_addr *address, char name[static INET6_ADDRSTRLEN]);
bool peers_trust(const struct peers *peers, const char *name);
/*
 * The client behind a peer: the last address of X-Forwarded-For that is no trusted proxy's, if the peer is trusted;
 * with trusted * the first. Else the peer.
 */
void peers_client(const struct peers *peers, const struct peer *peer, struct span forwarded_for,
                  char name[static PEER_NAME_MAX_BYTES]);

#endif
