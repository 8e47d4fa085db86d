#include "master/listen.h"

#include "common/log.h"
#include "common/settings.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_HIGHEST 65535

/* A port is one to five digits with a value a port can have. */
static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && digits <= 5 && text[digits] == '\0' && strtol(text, NULL, 10) <= PORT_HIGHEST;
}

const char *listen_parse(const char *text, struct listen_address *address)
{
    const char *host = text;
    const char *colon = strrchr(text, ':');
    size_t length;

    if (colon == NULL)
        return "no port; expected host:port or [v6]:port";
    length = (size_t)(colon - text);
    if (*text == '[') {
        if (length < 3 || text[length - 1] != ']')
            return "expected [v6]:port";
        host++;
        length -= 2;
    } else if (memchr(text, ':', length) != NULL) {
        return "an IPv6 address needs brackets: [v6]:port";
    }
    if (length == 0)
        return "no host; 0.0.0.0 or [::] listens on all addresses";
    if (length >= sizeof address->host)
        return "the host is too long";
    if (!is_port(colon + 1))
        return "the port is not a number from 0 to 65535";
    snprintf(address->host, sizeof address->host, "%.*s", (int)length, host);
    snprintf(address->port, sizeof address->port, "%s", colon + 1);
    return NULL;
}

/* The addresses of one item, to be freed with freeaddrinfo(); NULL after a log line. */
static struct addrinfo *resolve(const char *item)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct listen_address address;
    struct addrinfo *found = NULL;
    const char *fault = listen_parse(item, &address);
    int code;

    if (fault != NULL) {
        log_error("cannot listen on %s: %s", item, fault);
        return NULL;
    }
    code = getaddrinfo(address.host, address.port, &hints, &found);
    if (code != 0) {
        log_error("cannot listen on %s: %s", item, code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
        return NULL;
    }
    return found;
}

bool listeners_check(const char *bind_list)
{
    char item[LISTEN_HOST_MAX_BYTES + LISTEN_PORT_MAX_BYTES + 4];
    bool good = true, any = false;

    while (settings_list_next(&bind_list, item, sizeof item)) {
        struct addrinfo *found = resolve(item);

        any = true;
        if (found == NULL)
            good = false;
        else
            freeaddrinfo(found);
    }
    if (!any)
        log_error("cannot listen: the setting bind names no address");
    return good && any;
}

/* One listening socket, or -1 with errno. */
static int open_socket(const struct addrinfo *address, int backlog)
{
    const int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, address->ai_protocol);
    int saved_errno;

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (address->ai_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
        bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, backlog) == 0)
        return fd;
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return -1;
}

/* What an operator can do about the usual reasons. */
static const char *advice(int reason)
{
    switch (reason) {
    case EADDRINUSE:
        return " (another server runs there; choose another --bind)";
    case EADDRNOTAVAIL:
        return " (no interface of this machine has that address)";
    case EACCES:
        return " (ports below 1024 need root or CAP_NET_BIND_SERVICE)";
    case E2BIG:
        return " (more addresses than one server listens on)";
    default:
        return "";
    }
}

/* A name may stand for a family this machine does not have (localhost, ::1): such addresses are passed over. */
static bool is_missing_here(int reason)
{
    return reason == EADDRNOTAVAIL || reason == EAFNOSUPPORT;
}

/* Opens all addresses of one item; one that cannot be had is a failure unless others of the same name were had. */
static bool open_item(struct listeners *listeners, const char *item, int backlog)
{
    struct addrinfo *found = resolve(item);
    size_t before = listeners->count;
    int reason = 0;

    if (found == NULL)
        return false;
    for (const struct addrinfo *a = found; a != NULL && (reason == 0 || is_missing_here(reason)); a = a->ai_next) {
        int fd = open_socket(a, backlog);

        if (fd < 0) {
            reason = errno;
        } else if (listeners->count < LISTEN_MAX) {
            listeners->fds[listeners->count++] = fd;
        } else {
            close(fd);
            reason = E2BIG;
        }
    }
    freeaddrinfo(found);
    if (reason == 0 || (is_missing_here(reason) && listeners->count > before))
        return true;
    log_error("cannot listen on %s: %s%s", item, strerror(reason), advice(reason));
    return false;
}

bool listeners_open(struct listeners *listeners, const char *bind_list, int backlog)
{
    char item[LISTEN_HOST_MAX_BYTES + LISTEN_PORT_MAX_BYTES + 4];

    listeners->count = 0;
    while (settings_list_next(&bind_list, item, sizeof item)) {
        if (!open_item(listeners, item, backlog)) {
            listeners_close(listeners);
            return false;
        }
    }
    if (listeners->count == 0)
        log_error("cannot listen: the setting bind names no address");
    return listeners->count > 0;
}

void listeners_close(struct listeners *listeners)
{
    while (listeners->count > 0)
        close(listeners->fds[--listeners->count]);
}

const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES])
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    char host[LISTEN_HOST_MAX_BYTES], port[LISTEN_PORT_MAX_BYTES];

    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0 ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, LISTEN_NAME_MAX_BYTES, "(unknown address)");
    else
        snprintf(out, LISTEN_NAME_MAX_BYTES, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return out;
}
