/*
 * reach: whether a sandbox that has the internet may be connected to an address.
 *
 * The kernel is asked where the address leads each time, so that an address this machine has only had for a second is
 * known as its own: its routes name all of them, those of every interface, and the broadcast addresses.
 */
#ifndef SANDBOXD_REACH_H
#define SANDBOXD_REACH_H

#include "sandboxd/address.h"

enum reach_result {
    REACH_OPEN,
    REACH_FORBIDDEN,
    REACH_NO_ROUTE, /* it leads nowhere, or the kernel did not say where */
};

/* The socket of netlink that the kernel is asked through. */
struct reach {
    int netlink_fd;
    uint32_t sequence; /* of the last question */
};

/* Opens it; false with errno. */
bool reach_open(struct reach *reach) __attribute__((warn_unused_result));
void reach_close(struct reach *reach);

/* Judges an address; on FORBIDDEN *what says in words what it is. Never blocks. */
enum reach_result reach_check(struct reach *reach, const union address *address, const char **what)
    __attribute__((warn_unused_result));

#endif
