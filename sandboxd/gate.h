/*
 * gate: the way out of a sandbox's private network, to the allowed endpoints and nowhere else.
 *
 * Init accepts connections on the sandbox's loopback and hands them over. One that came to the proxy's port says where
 * it wants to go in an HTTP CONNECT; one that came to the place of a loopback endpoint goes there. Names are resolved
 * and connections made out here. Both directions are relayed with back-pressure and half-close.
 */
#ifndef SANDBOXD_GATE_H
#define SANDBOXD_GATE_H

#include "sandboxd/sandbox.h"

#include <event2/dns.h>

struct gate {
    struct event_base *base;
    struct evdns_base *dns; /* NULL when every endpoint is an address */
    const struct endpoint_list *allowed;
};

/* Hook of the sandboxes: takes the connection. gate is a struct gate. */
void gate_accepted(struct sandbox *sandbox, unsigned listener, int fd, void *gate);

#endif
