#include "sandboxd/resolver.h"

#include "common/log.h"

#include <event2/dns.h>
#include <event2/util.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define HOSTS       "/etc/hosts"

/* How libevent's client is set up: its own bounds are for one program, not for many sandboxes. */
static const struct {
    const char *option, *value;
} dns_options[] = {{"max-inflight:", "16384"}, {"timeout:", "3"}, {"attempts:", "3"}};

/* The files as they were read. */
static const char *const files[] = {RESOLV_CONF, HOSTS};
#define FILE_COUNT (sizeof files / sizeof *files)

struct resolver {
    struct event_base *base;
    struct evdns_base *dns;
    struct timespec read_files[FILE_COUNT]; /* their times of change; 0: not there */
};

/* One name on its way. */
struct lookup {
    struct evdns_getaddrinfo_request *request; /* NULL once it was answered */
    struct event *deliver;
    bool is_cancelled;
    uint16_t port;
    struct address_list addresses;
    void (*done)(const struct address_list *addresses, void *arg);
    void *arg;
};

/* Looks at the files; whether one is another than it was. */
static bool note_files(struct resolver *resolver)
{
    bool changed = false;

    for (size_t i = 0; i < FILE_COUNT; i++) {
        struct timespec *was = &resolver->read_files[i];
        struct stat file = {0};

        if (stat(files[i], &file) < 0)
            file.st_mtim = (struct timespec){0};
        changed = changed || file.st_mtim.tv_sec != was->tv_sec || file.st_mtim.tv_nsec != was->tv_nsec;
        *was = file.st_mtim;
    }
    return changed;
}

/* Options of the file come after ours. Without a file libevent asks a server on this machine. */
static void read_files(struct resolver *resolver)
{
    for (size_t i = 0; i < sizeof dns_options / sizeof *dns_options; i++)
        evdns_base_set_option(resolver->dns, dns_options[i].option, dns_options[i].value);
    evdns_base_resolv_conf_parse(resolver->dns, DNS_OPTIONS_ALL, RESOLV_CONF);
}

struct resolver *resolver_new(struct event_base *base)
{
    struct resolver *resolver = calloc(1, sizeof *resolver);

    if (resolver == NULL)
        return NULL;
    resolver->base = base;
    resolver->dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (resolver->dns == NULL) {
        free(resolver);
        return NULL;
    }
    note_files(resolver);
    read_files(resolver);
    return resolver;
}

void resolver_free(struct resolver *resolver)
{
    if (resolver == NULL)
        return;
    evdns_base_free(resolver->dns, 0);
    free(resolver);
}

/* Lookups that are on their way go on with the new servers. */
static void refresh(struct resolver *resolver)
{
    if (!note_files(resolver))
        return;
    log_info("%s or %s changed: read again", RESOLV_CONF, HOSTS);
    evdns_base_clear_nameservers_and_suspend(resolver->dns);
    evdns_base_search_clear(resolver->dns);
    evdns_base_clear_host_addresses(resolver->dns);
    read_files(resolver);
    evdns_base_resume(resolver->dns);
}

static void lookup_free(struct lookup *lookup)
{
    event_free(lookup->deliver);
    free(lookup);
}

static void on_deliver(evutil_socket_t fd, short what, void *arg)
{
    struct lookup *lookup = arg;

    (void)fd;
    (void)what;
    lookup->done(&lookup->addresses, lookup->arg);
    lookup_free(lookup);
}

/* Adds the addresses of one family. */
static void add_family(struct lookup *lookup, const struct evutil_addrinfo *found, int family)
{
    struct address_list *list = &lookup->addresses;

    for (; found != NULL && list->count < RESOLVER_ADDRESSES_MAX; found = found->ai_next) {
        union address *address = &list->entries[list->count];

        if (found->ai_family != family || found->ai_addrlen > sizeof *address)
            continue;
        memcpy(address, found->ai_addr, found->ai_addrlen);
        if (family == AF_INET)
            address->v4.sin_port = htons(lookup->port);
        else
            address->v6.sin6_port = htons(lookup->port);
        address_unmap(address);
        list->count++;
    }
}

/* libevent's answer; it may come while the lookup is being started. */
static void on_answer(int result, struct evutil_addrinfo *found, void *arg)
{
    struct lookup *lookup = arg;

    lookup->request = NULL;
    if (result == 0) {
        add_family(lookup, found, AF_INET);
        add_family(lookup, found, AF_INET6);
    }
    if (found != NULL)
        evutil_freeaddrinfo(found);
    if (lookup->is_cancelled)
        lookup_free(lookup);
    else
        event_active(lookup->deliver, EV_TIMEOUT, 0);
}

static void ask(struct resolver *resolver, struct lookup *lookup, const char *host)
{
    const struct evutil_addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};

    refresh(resolver);
    lookup->request = evdns_getaddrinfo(resolver->dns, host, NULL, &hints, on_answer, lookup);
}

struct lookup *resolver_start(struct resolver *resolver, const struct endpoint *endpoint,
                              void (*done)(const struct address_list *addresses, void *arg), void *arg)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);

    if (lookup == NULL)
        return NULL;
    *lookup = (struct lookup){.port = endpoint->port, .done = done, .arg = arg};
    lookup->deliver = evtimer_new(resolver->base, on_deliver, lookup);
    if (lookup->deliver == NULL) {
        free(lookup);
        return NULL;
    }
    if (endpoint_address(endpoint, &lookup->addresses.entries[0])) {
        address_unmap(&lookup->addresses.entries[0]);
        lookup->addresses.count = 1;
        event_active(lookup->deliver, EV_TIMEOUT, 0);
    } else {
        ask(resolver, lookup, endpoint->host);
    }
    return lookup;
}

void lookup_cancel(struct lookup *lookup)
{
    if (lookup->request == NULL) {
        lookup_free(lookup);
        return;
    }
    /* libevent answers that it was cancelled. */
    lookup->is_cancelled = true;
    evdns_getaddrinfo_cancel(lookup->request);
}
