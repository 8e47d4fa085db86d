#include "sandboxd/reach.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* One answer: a route and its attributes. */
#define ANSWER_MAX_BYTES 8192

bool reach_open(struct reach *reach)
{
    *reach = (struct reach){.netlink_fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)};
    return reach->netlink_fd >= 0;
}

void reach_close(struct reach *reach)
{
    if (reach->netlink_fd >= 0)
        close(reach->netlink_fd);
    reach->netlink_fd = -1;
}

/* Asks for the route to an address; false with errno. */
static bool ask_route(int netlink_fd, const union address *address, uint32_t sequence)
{
    bool is_v4 = address->any.sa_family == AF_INET;
    const void *bytes = is_v4 ? (const void *)&address->v4.sin_addr : (const void *)&address->v6.sin6_addr;
    size_t length = is_v4 ? sizeof address->v4.sin_addr : sizeof address->v6.sin6_addr;
    struct {
        struct nlmsghdr header;
        struct rtmsg route;
        struct rtattr attribute;
        unsigned char destination[sizeof(struct in6_addr)];
    } query = {
        .header = {.nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = sequence},
        .route = {.rtm_family = (unsigned char)address->any.sa_family, .rtm_dst_len = (unsigned char)(length * 8)},
        .attribute = {.rta_type = RTA_DST, .rta_len = (unsigned short)RTA_LENGTH(length)},
    };

    query.header.nlmsg_len = (uint32_t)(NLMSG_LENGTH(sizeof query.route) + RTA_LENGTH(length));
    memcpy(query.destination, bytes, length);
    return send(netlink_fd, &query, query.header.nlmsg_len, 0) == (ssize_t)query.header.nlmsg_len;
}

/* The kernel answers inside of the question: what is not there now does not come. -1: no route. */
static int read_route_type(int netlink_fd, uint32_t sequence)
{
    _Alignas(struct nlmsghdr) char answer[ANSWER_MAX_BYTES];
    const struct nlmsghdr *header = (const struct nlmsghdr *)(const void *)answer;
    ssize_t got;

    /* The answers to questions that were given up are passed over. */
    do {
        got = recv(netlink_fd, answer, sizeof answer, MSG_DONTWAIT);
        if (got < (ssize_t)NLMSG_LENGTH(sizeof(struct rtmsg)))
            return -1;
    } while (header->nlmsg_seq != sequence);
    if (header->nlmsg_type != RTM_NEWROUTE)
        return -1;
    return ((const struct rtmsg *)NLMSG_DATA(header))->rtm_type;
}

/* The type of the route (RTN_LOCAL and so on), or -1. */
static int route_type(struct reach *reach, const union address *address)
{
    reach->sequence++;
    return ask_route(reach->netlink_fd, address, reach->sequence) ? read_route_type(reach->netlink_fd, reach->sequence)
                                                                  : -1;
}

static const char *name_of_route(int type)
{
    return type == RTN_BROADCAST ? "a broadcast address" : "an address of this machine";
}

enum reach_result reach_check(struct reach *reach, const union address *address, const char **what)
{
    union address direct = *address, v4;
    int type;

    *what = address_not_public(address);
    if (*what != NULL)
        return REACH_FORBIDDEN;
    if (address_embedded(address, &v4)) {
        type = route_type(reach, &v4);
        /* Without a route in IPv4 it is no address of ours. */
        *what = type >= 0 && type != RTN_UNICAST ? name_of_route(type) : NULL;
        if (*what != NULL)
            return REACH_FORBIDDEN;
    }
    address_unmap(&direct);
    type = route_type(reach, &direct);
    if (type < 0)
        return REACH_NO_ROUTE;
    *what = type != RTN_UNICAST ? name_of_route(type) : NULL;
    return *what == NULL ? REACH_OPEN : REACH_FORBIDDEN;
}
