#include "sandboxd/listen.h"

#include "common/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define INHERITED_FD   3
#define LISTEN_BACKLOG 512

/* --- TCP ------------------------------------------------------------------------------------------ */

/* Splits host:port; the host loses its brackets. false when it is not of that form. */
static bool split(const char *text, char host[static INET6_ADDRSTRLEN], in_port_t *port)
{
    const char *colon = strrchr(text, ':');
    size_t length = colon == NULL ? 0 : (size_t)(colon - text);
    char *end;
    unsigned long number;

    if (length == 0 || colon[1] < '0' || colon[1] > '9')
        return false;
    number = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || number > UINT16_MAX)
        return false;
    *port = htons((uint16_t)number);
    if (text[0] == '[' && text[length - 1] == ']') {
        text++;
        length -= 2;
    } else if (memchr(text, ':', length) != NULL) {
        return false;
    }
    if (length >= INET6_ADDRSTRLEN)
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

const char *listen_parse(const char *text, struct listen_address *address)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)&address->socket_address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&address->socket_address;
    char host[INET6_ADDRSTRLEN];
    in_port_t port;
    bool is_loopback;

    *address = (struct listen_address){0};
    if (!split(text, host, &port))
        return "not an address and a port, such as 127.0.0.1:3900";
    if (strcmp(host, "localhost") == 0)
        strcpy(host, "127.0.0.1");
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = port;
        address->length = sizeof *v4;
        is_loopback = ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
    } else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = port;
        address->length = sizeof *v6;
        is_loopback = IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
    } else {
        return "not an IP address or localhost";
    }
    return is_loopback ? NULL
                       : "not a loopback address; keys would cross the network in the clear: "
                         "listen on 127.0.0.1 or [::1], behind a TLS proxy or a tunnel";
}

const char *listen_name(int fd, char out[static LISTEN_NAME_MAX_BYTES])
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } bound = {.v6 = {.sin6_family = AF_UNSPEC}};
    socklen_t length = sizeof bound;
    char host[INET6_ADDRSTRLEN] = "";

    snprintf(out, LISTEN_NAME_MAX_BYTES, "?");
    if (getsockname(fd, &bound.any, &length) < 0)
        return out;
    if (bound.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &bound.v4.sin_addr, host, sizeof host);
        snprintf(out, LISTEN_NAME_MAX_BYTES, "%s:%u", host, ntohs(bound.v4.sin_port));
    } else if (bound.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &bound.v6.sin6_addr, host, sizeof host);
        snprintf(out, LISTEN_NAME_MAX_BYTES, "[%s]:%u", host, ntohs(bound.v6.sin6_port));
    }
    return out;
}

/* Small events must not wait for the acknowledgement of the one before: connections inherit this. */
static bool set_tcp_options(int fd)
{
    int on = 1;

    return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
           setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0;
}

int listen_tcp(const struct listen_address *address)
{
    const struct sockaddr *socket_address = (const struct sockaddr *)&address->socket_address;
    int fd = socket(socket_address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && set_tcp_options(fd) && bind(fd, socket_address, address->length) == 0 &&
        listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    log_error("cannot listen on the address of --listen: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

/* --- unix ----------------------------------------------------------------------------------------- */

/* Removes a socket that nobody listens on any more; false when somebody does. */
static bool remove_stale(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool alive = fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof *address) == 0;

    if (fd >= 0)
        close(fd);
    if (alive)
        return false;
    return unlink(address->sun_path) == 0 || errno == ENOENT;
}

int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    mode_t before;
    int fd, result;

    if (strlen(path) >= sizeof address.sun_path) {
        log_error("socket %s: the path is longer than %zu bytes", path, sizeof address.sun_path - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    if (!remove_stale(&address)) {
        log_error("socket %s: in use by another process", path);
        return -1;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    before = umask(0177);
    result = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof address);
    umask(before);
    if (result < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        log_error("socket %s: %s", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    return fd;
}

bool listen_is_inherited(void)
{
    const char *count = getenv("LISTEN_FDS");
    const char *pid = getenv("LISTEN_PID");

    return count != NULL && atoi(count) >= 1 && (pid == NULL || atoi(pid) == (int)getpid());
}

int listen_inherited(void)
{
    int listening = 0;
    socklen_t length = sizeof listening;

    if (getsockopt(INHERITED_FD, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0 || !listening) {
        log_error("descriptor %d was announced by LISTEN_FDS but is no listening socket", INHERITED_FD);
        return -1;
    }
    fcntl(INHERITED_FD, F_SETFL, O_NONBLOCK);
    fcntl(INHERITED_FD, F_SETFD, FD_CLOEXEC);
    return INHERITED_FD;
}
