/*
 * proxy_header: the PROXY protocol, versions 1 and 2: what a proxy says first on a connection about its client.
 * (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, sections 2.1 and 2.2.) Pure.
 */
#ifndef WORKER_PROXY_HEADER_H
#define WORKER_PROXY_HEADER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

/* A header is never longer: version 1 has 107 bytes, of version 2 more is refused than a few extensions need. */
#define PROXY_HEADER_MAX_BYTES 536

enum proxy_header_result {
    PROXY_HEADER_MORE, /* fine so far */
    PROXY_HEADER_DONE, /* *length bytes are the header */
    PROXY_HEADER_BAD,  /* it is none */
};

/*
 * Looks at the first bytes of a connection. name becomes the client's address as text, or "" when the proxy speaks for
 * itself (LOCAL, UNKNOWN, an address family of which there is no name): then the proxy is the client.
 */
enum proxy_header_result proxy_header_read(const char *bytes, size_t available, size_t *length,
                                           char name[static INET6_ADDRSTRLEN]);

#endif
