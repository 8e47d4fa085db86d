/*
 * listen: the sockets clients connect to: TCP and unix. Bound by the master and kept open for its life, so that their
 * queues of waiting connections outlive every worker; a reload opens what is new and closes what is no longer named.
 * Failures are logged here, with the address and the reason.
 */
#ifndef MASTER_LISTEN_H
#define MASTER_LISTEN_H

#include "common/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define LISTEN_MAX            64
#define LISTEN_HOST_MAX_BYTES 256
#define LISTEN_PORT_MAX_BYTES 8
#define LISTEN_NAME_MAX_BYTES 300
#define LISTEN_ITEM_MAX_BYTES (LISTEN_HOST_MAX_BYTES + LISTEN_PORT_MAX_BYTES + 32)

/* What is known of a listening socket besides its descriptor. */
struct listener {
    char item[LISTEN_ITEM_MAX_BYTES]; /* of `bind`, without its options; "": inherited from the service manager */
    unsigned number;                  /* of the item in the list: a name may stand for several sockets */
    bool has_proxy_header;            /* each connection begins with a PROXY protocol header */
    dev_t device;                     /* of a unix socket's file, and */
    ino_t inode;                      /* 0: TCP */
};

struct listeners {
    int fds[LISTEN_MAX];
    size_t count;
    struct listener about[LISTEN_MAX]; /* of the descriptor at the same place */
};

/* One item of the setting `bind`, not yet resolved. */
struct listen_address {
    char host[LISTEN_HOST_MAX_BYTES]; /* without brackets; of a unix socket its path */
    char port[LISTEN_PORT_MAX_BYTES]; /* 0 to 65535; 0 lets the kernel choose; "": a unix socket */
    bool has_proxy_header;            /* the item ends in ;proxy_protocol */
};

/*
 * Takes "host:port", "[v6]:port" or "unix:/path" apart, with ";proxy_protocol" behind it or not. Returns NULL, or what
 * is wrong with it.
 */
const char *listen_parse(const char *text, struct listen_address *address) __attribute__((warn_unused_result));

/* Parses and resolves every item of `bind` without binding: what --check may do while a server runs. */
bool listeners_check(const struct settings *settings) __attribute__((warn_unused_result));

/*
 * Opens every item of `bind`, non-blocking and close-on-exec; all or none. What is open in in_use is not opened again
 * but shared with it. in_use NULL is the start: sockets the service manager hands over (LISTEN_FDS) then take the place
 * of `bind`, for good.
 */
bool listeners_open(struct listeners *listeners, const struct settings *settings, const struct listeners *in_use)
    __attribute__((warn_unused_result));

/* Closes what is not in kept (NULL: nothing is), and removes the files of unix sockets that are still its own. */
void listeners_close(struct listeners *listeners, const struct listeners *kept);

/* Which of them expect a PROXY protocol header: a bit each, in their order. */
uint64_t listeners_proxied(const struct listeners *listeners);

/* The address a socket is really bound to: "127.0.0.1:8000", "[::1]:8000", "unix:/run/s.sock". Returns out. */
const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES]);

/* For a successor by exec: one listener as text in a line, and the next one from such a text. */
void listener_write(const struct listeners *listeners, size_t index, FILE *out);
bool listener_read(struct listeners *listeners, const char *text) __attribute__((warn_unused_result));

#endif
