/*
 * resolver: names to addresses, without ever blocking the loop: libevent's DNS client.
 *
 * It asks the name servers of /etc/resolv.conf and knows /etc/hosts, both read again when they change. There is room
 * for every connection of every sandbox at once, so that slow names of one do not hold up another's.
 */
#ifndef SANDBOXD_RESOLVER_H
#define SANDBOXD_RESOLVER_H

#include "sandboxd/endpoint.h"

#include <event2/event.h>

#define RESOLVER_ADDRESSES_MAX 8

/* The addresses of an endpoint, IPv4 first: where IPv6 leads nowhere no time is lost with it. */
struct address_list {
    size_t count;
    union address entries[RESOLVER_ADDRESSES_MAX];
};

struct resolver;
struct lookup;

/* NULL when memory is out. */
struct resolver *resolver_new(struct event_base *base) __attribute__((warn_unused_result));
/* All lookups must have ended. */
void resolver_free(struct resolver *resolver);

/*
 * Finds the addresses of an endpoint's host. done(addresses, arg) is called once, from the loop, never before this
 * returns; an empty list: there is no such name, or no server answered. NULL when memory is out.
 */
struct lookup *resolver_start(struct resolver *resolver, const struct endpoint *endpoint,
                              void (*done)(const struct address_list *addresses, void *arg), void *arg)
    __attribute__((warn_unused_result));

/* Before done was called: it is not called. */
void lookup_cancel(struct lookup *lookup);

#endif
