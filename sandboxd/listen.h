/* listen: the sockets that clients connect to: a unix socket, and on request TCP on loopback (spec/e2b.md B.1). */
#ifndef SANDBOXD_LISTEN_H
#define SANDBOXD_LISTEN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>

/* An address of --listen: IPv4 or IPv6, always on loopback. */
struct listen_address {
    struct sockaddr_storage socket_address;
    socklen_t length; /* 0: none */
};

/*
 * Reads 127.x.y.z:port, [::1]:port or localhost:port; port 0 is any free one. NULL, or what is wrong with it: other
 * addresses are refused, because HTTP without TLS and a key in it is not for a network.
 */
const char *listen_parse(const char *text, struct listen_address *address) __attribute__((warn_unused_result));

#define LISTEN_NAME_MAX_BYTES (INET6_ADDRSTRLEN + sizeof "[]:65535")

/* Writes where a TCP socket listens, with the port it has got. Returns out. */
const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES]);

/* Whether systemd's protocol says that descriptor 3 is a socket for us. */
bool listen_is_inherited(void);

/* Listening sockets, non-blocking and close-on-exec; -1 with the reason logged. */
int listen_tcp(const struct listen_address *address) __attribute__((warn_unused_result));
/* For the owner only: its mode is what guards the API. Replaces a socket that nobody listens on. */
int listen_unix(const char *path) __attribute__((warn_unused_result));
int listen_inherited(void) __attribute__((warn_unused_result));

#endif
