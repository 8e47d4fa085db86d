/*
 * listen: the TCP sockets clients connect to. Bound once by the master and kept open for its life, so that their queues
 * of waiting connections outlive every worker. Failures are logged here, with the address and the reason.
 */
#ifndef MASTER_LISTEN_H
#define MASTER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>

#define LISTEN_MAX            64
#define LISTEN_HOST_MAX_BYTES 256
#define LISTEN_PORT_MAX_BYTES 8
#define LISTEN_NAME_MAX_BYTES 300

struct listeners {
    int fds[LISTEN_MAX];
    size_t count;
};

/* One item of the setting `bind`, not yet resolved. */
struct listen_address {
    char host[LISTEN_HOST_MAX_BYTES]; /* without brackets */
    char port[LISTEN_PORT_MAX_BYTES]; /* 0 to 65535; 0 lets the kernel choose */
};

/* Splits "host:port" or "[v6]:port". Returns NULL, or what is wrong with it. */
const char *listen_parse(const char *text, struct listen_address *address) __attribute__((warn_unused_result));

/* Parses and resolves every item of the list without binding: what --check may do while a server runs. */
bool listeners_check(const char *bind_list) __attribute__((warn_unused_result));

/* Opens every item of the list, non-blocking and close-on-exec. All or none. */
bool listeners_open(struct listeners *listeners, const char *bind_list, int backlog)
    __attribute__((warn_unused_result));
void listeners_close(struct listeners *listeners);

/* The address a socket is really bound to, as "127.0.0.1:8000" or "[::1]:8000". Returns out. */
const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES]);

#endif
