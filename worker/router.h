/*
 * router: request target -> route (http-api.md 2.2). Pure. The path is cut into segments first and decoded then, so an
 * encoded slash never separates.
 */
#ifndef WORKER_ROUTER_H
#define WORKER_ROUTER_H

#include "worker/server.h"
#include "worker/span.h"

enum router_result {
    ROUTER_FOUND,
    ROUTER_SLASH,     /* the path of a route with one slash too many at its end */
    ROUTER_UNKNOWN,   /* no such path */
    ROUTER_NO_TARGET, /* neither a path, nor an http URL with a host, nor `*` */
};

/* Pieces point into the target. */
struct router_match {
    const struct route *route; /* of ROUTER_FOUND and ROUTER_SLASH: matched by path, whatever its method */
    struct span path;          /* as sent; of an http URL: what follows the authority */
    struct span query;         /* what follows the `?`; absent without one */
    struct span id;            /* as sent: the segment that stands for `{id}` in the route's path, if it has one */
};

/* routes ends with path NULL. */
enum router_result router_match(const struct route *routes, struct span target, struct router_match *match);

#endif
