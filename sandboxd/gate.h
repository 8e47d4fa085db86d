/*
 * gate: the way out of a sandbox's private network: to the allowed endpoints, and to the internet if it has that.
 *
 * Init accepts connections on the sandbox's loopback and hands them over. One that came to the proxy's port says where
 * it wants to go (proxy_request.h); one that came to the place of a loopback endpoint goes there. Names are resolved
 * and connections made out here, and what is judged is the address that is connected to, before and after: whatever
 * a name stood for when somebody looked does not count. An endpoint that the operator allows is not judged.
 */
#ifndef SANDBOXD_GATE_H
#define SANDBOXD_GATE_H

#include "sandboxd/reach.h"
#include "sandboxd/resolver.h"
#include "sandboxd/sandbox.h"

/* Connections of one sandbox at once. */
#define GATE_SANDBOX_CONNECTIONS_MAX 128

struct gate {
    struct event_base *base;
    const struct network *network;
    struct resolver *resolver;
    struct reach reach;
    unsigned connections, connections_max; /* of all sandboxes together */
};

/* network must outlive the gate. False with the reason logged. */
bool gate_open(struct gate *gate, struct event_base *base, const struct network *network)
    __attribute__((warn_unused_result));
/* All sandboxes must have ended. */
void gate_close(struct gate *gate);
/* Each connection takes two of this process's descriptors: half of them are for connections. */
void gate_set_descriptors(struct gate *gate, unsigned long long descriptors);

/* Hook of the sandboxes: takes the connection. gate is a struct gate. */
void gate_accepted(struct sandbox *sandbox, unsigned listener, int fd, void *gate);

#endif
