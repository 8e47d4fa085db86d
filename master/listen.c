#include "master/listen.h"

#include "common/log.h"
#include "master/listen_inherited.h"
#include "master/listen_unix.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PORT_HIGHEST 65535
#define UNIX_PREFIX  "unix:"
#define PROXY_OPTION ";proxy_protocol"

/* A port is one to five digits with a value a port can have. */
static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");

    return digits > 0 && digits <= 5 && text[digits] == '\0' && strtol(text, NULL, 10) <= PORT_HIGHEST;
}

/* "unix:/path" without its prefix. */
static const char *parse_path(const char *path, struct listen_address *address)
{
    if (*path != '/')
        return "expected unix:/path";
    if (strlen(path) >= sizeof((struct sockaddr_un *)NULL)->sun_path)
        return "the path is too long for a socket";
    snprintf(address->host, sizeof address->host, "%s", path);
    *address->port = '\0';
    return NULL;
}

/* An item without its options. */
static const char *parse_address(const char *text, struct listen_address *address)
{
    const char *host = text;
    const char *colon = strrchr(text, ':');
    size_t length;

    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return parse_path(text + strlen(UNIX_PREFIX), address);
    if (colon == NULL)
        return "no port; expected host:port, [v6]:port or unix:/path";
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

const char *listen_parse(const char *text, struct listen_address *address)
{
    char item[LISTEN_ITEM_MAX_BYTES];
    char *option;

    if (strlen(text) >= sizeof item)
        return "too long";
    snprintf(item, sizeof item, "%s", text);
    option = strchr(item, ';');
    address->has_proxy_header = option != NULL && strcmp(option, PROXY_OPTION) == 0;
    if (option != NULL && !address->has_proxy_header)
        return "the only option is ;proxy_protocol";
    if (option != NULL)
        *option = '\0';
    return parse_address(item, address);
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
        return " (ports below 1024 need root or CAP_NET_BIND_SERVICE, a path a directory that may be written)";
    case EEXIST:
        return " (it is no socket)";
    default:
        return "";
    }
}

static void log_failure(const char *item, int reason)
{
    if (reason == E2BIG)
        log_error("cannot listen on %s: a server listens on %d addresses at most", item, LISTEN_MAX);
    else
        log_error("cannot listen on %s: %s%s", item, strerror(reason), advice(reason));
}

/* The addresses of a name, to be freed with freeaddrinfo(); NULL after a log line. */
static struct addrinfo *resolve(const char *item, const struct listen_address *address)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(address->host, address->port, &hints, &found);

    if (code == 0)
        return found;
    log_error("cannot listen on %s: %s", item, code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code));
    return NULL;
}

static bool parse(const char *item, struct listen_address *address)
{
    const char *fault = listen_parse(item, address);

    if (fault != NULL)
        log_error("cannot listen on %s: %s", item, fault);
    return fault == NULL;
}

static bool check_item(const char *item)
{
    struct listen_address address;
    struct addrinfo *found;

    if (!parse(item, &address))
        return false;
    if (*address.port == '\0')
        return true;
    found = resolve(item, &address);
    if (found != NULL)
        freeaddrinfo(found);
    return found != NULL;
}

bool listeners_check(const struct settings *settings)
{
    const char *list = settings->bind;
    char item[LISTEN_ITEM_MAX_BYTES];
    bool good = listen_unix_check(settings);
    unsigned count = 0;

    while (settings_list_next(&list, item, sizeof item)) {
        good = check_item(item) && good;
        /* Only binding tells how many of a name's addresses this machine has: each counts as one here. */
        if (++count > LISTEN_MAX) {
            log_failure(item, E2BIG);
            return false;
        }
    }
    if (count == 0)
        log_error("cannot listen: the setting bind names no address");
    return good && count > 0;
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

/* A name may stand for a family this machine does not have (localhost, ::1): such addresses are passed over. */
static bool is_missing_here(int reason)
{
    return reason == EADDRNOTAVAIL || reason == EAFNOSUPPORT;
}

static bool add(struct listeners *listeners, int fd, const struct listener *about)
{
    if (listeners->count == LISTEN_MAX)
        return false;
    listeners->about[listeners->count] = *about;
    listeners->fds[listeners->count++] = fd;
    return true;
}

/* Opens all addresses of a name; one that cannot be had is a failure unless others of the same name were had. */
static bool open_name(struct listeners *listeners, const struct listen_address *address,
                      const struct settings *settings, const struct listener *about)
{
    struct addrinfo *found = resolve(about->item, address);
    size_t before = listeners->count;
    int reason = 0;

    if (found == NULL)
        return false;
    for (const struct addrinfo *a = found; a != NULL && (reason == 0 || is_missing_here(reason)); a = a->ai_next) {
        int fd = open_socket(a, (int)settings->backlog);

        if (fd < 0) {
            reason = errno;
        } else if (!add(listeners, fd, about)) {
            close(fd);
            reason = E2BIG;
        }
    }
    freeaddrinfo(found);
    if (reason == 0 || (is_missing_here(reason) && listeners->count > before))
        return true;
    log_failure(about->item, reason);
    return false;
}

static bool open_path(struct listeners *listeners, const struct listen_address *address,
                      const struct settings *settings, struct listener *about)
{
    int fd = listen_unix_open(address->host, settings, about);
    int reason = fd < 0 ? errno : E2BIG;

    if (fd >= 0 && add(listeners, fd, about))
        return true;
    log_failure(about->item, reason);
    if (fd >= 0) {
        close(fd);
        listen_unix_remove(about);
    }
    return false;
}

static bool holds(const struct listeners *listeners, int fd)
{
    for (size_t i = 0; i < listeners->count; i++) {
        if (listeners->fds[i] == fd)
            return true;
    }
    return false;
}

/* Takes the sockets that are open for the same text, if there are some that nobody has taken; true: there are. */
static bool share(struct listeners *listeners, const struct listeners *in_use, const struct listener *about)
{
    unsigned number = 0;
    bool found = false;

    for (size_t i = 0; in_use != NULL && i < in_use->count; i++) {
        struct listener shared = in_use->about[i];

        if (strcmp(shared.item, about->item) != 0 || holds(listeners, in_use->fds[i]) ||
            (found && shared.number != number))
            continue;
        number = shared.number;
        shared.number = about->number;
        shared.has_proxy_header = about->has_proxy_header;
        found = add(listeners, in_use->fds[i], &shared);
    }
    return found;
}

static bool open_item(struct listeners *listeners, const char *item, unsigned number, const struct settings *settings,
                      const struct listeners *in_use)
{
    struct listener about = {.number = number};
    struct listen_address address;

    if (!parse(item, &address))
        return false;
    snprintf(about.item, sizeof about.item, "%.*s", (int)strcspn(item, ";"), item);
    about.has_proxy_header = address.has_proxy_header;
    if (share(listeners, in_use, &about))
        return true;
    if (*address.port == '\0')
        return open_path(listeners, &address, settings, &about);
    return open_name(listeners, &address, settings, &about);
}

static bool open_all(struct listeners *listeners, const struct settings *settings, const struct listeners *in_use)
{
    const char *list = settings->bind;
    char item[LISTEN_ITEM_MAX_BYTES];

    for (unsigned number = 0; settings_list_next(&list, item, sizeof item); number++) {
        if (!open_item(listeners, item, number, settings, in_use))
            return false;
    }
    if (listeners->count == 0)
        log_error("cannot listen: the setting bind names no address");
    return listeners->count > 0;
}

static bool are_inherited(const struct listeners *listeners)
{
    return listeners->count > 0 && *listeners->about[0].item == '\0';
}

bool listeners_open(struct listeners *listeners, const struct settings *settings, const struct listeners *in_use)
{
    listeners->count = 0;
    if (in_use == NULL && !listen_inherited(listeners))
        return false;
    if (in_use != NULL && are_inherited(in_use))
        *listeners = *in_use;
    if (are_inherited(listeners)) {
        log_info("the service manager gave %zu sockets: the setting bind has no effect", listeners->count);
        return true;
    }
    if (open_all(listeners, settings, in_use))
        return true;
    listeners_close(listeners, in_use);
    return false;
}

void listeners_close(struct listeners *listeners, const struct listeners *kept)
{
    while (listeners->count > 0) {
        size_t last = --listeners->count;

        if (kept != NULL && holds(kept, listeners->fds[last]))
            continue;
        if (listeners->about[last].inode != 0)
            listen_unix_remove(&listeners->about[last]);
        close(listeners->fds[last]);
    }
}

uint64_t listeners_proxied(const struct listeners *listeners)
{
    uint64_t proxied = 0;

    for (size_t i = 0; i < listeners->count; i++)
        proxied |= (uint64_t)listeners->about[i].has_proxy_header << i;
    return proxied;
}

const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES])
{
    struct sockaddr_storage address = {0};
    const struct sockaddr_un *path = (const struct sockaddr_un *)&address;
    socklen_t length = sizeof address;
    char host[LISTEN_HOST_MAX_BYTES], port[LISTEN_PORT_MAX_BYTES];
    bool known = getsockname(fd, (struct sockaddr *)&address, &length) == 0;

    if (known && address.ss_family == AF_UNIX)
        snprintf(out, LISTEN_NAME_MAX_BYTES, UNIX_PREFIX "%.*s", (int)sizeof path->sun_path, path->sun_path);
    else if (!known || getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                                   NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, LISTEN_NAME_MAX_BYTES, "(unknown address)");
    else
        snprintf(out, LISTEN_NAME_MAX_BYTES, address.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
    return out;
}

void listener_write(const struct listeners *listeners, size_t index, FILE *out)
{
    const struct listener *about = &listeners->about[index];

    fprintf(out, "%d %u %d %" PRIuMAX " %" PRIuMAX " %s", listeners->fds[index], about->number, about->has_proxy_header,
            (uintmax_t)about->device, (uintmax_t)about->inode, about->item);
}

bool listener_read(struct listeners *listeners, const char *text)
{
    struct listener about = {.number = 0};
    uintmax_t device, inode;
    int fd, proxied, used = -1;

    if (sscanf(text, "%d %u %d %" SCNuMAX " %" SCNuMAX "%n", &fd, &about.number, &proxied, &device, &inode, &used) !=
            5 ||
        used < 0 || fd < 0 || listeners->count == LISTEN_MAX)
        return false;
    text += used;
    text += *text == ' ';
    if (strlen(text) >= sizeof about.item)
        return false;
    snprintf(about.item, sizeof about.item, "%s", text);
    about.has_proxy_header = proxied != 0;
    about.device = (dev_t)device;
    about.inode = (ino_t)inode;
    return add(listeners, fd, &about);
}
