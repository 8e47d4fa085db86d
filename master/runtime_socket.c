#include "master/runtime_socket.h"

#include "common/log.h"
#include "master/listen_unix.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 1024

/* A directory only we can enter, below parent (the first of a colon-separated list). */
static bool make_directory_below(const char *parent, char *out, size_t size)
{
    int n;

    if (parent == NULL || *parent != '/')
        return false;
    n = snprintf(out, size, "%.*s/sandstorm-XXXXXX", (int)strcspn(parent, ":"), parent);
    return n > 0 && (size_t)n < size && mkdtemp(out) != NULL;
}

/* Makes the private directory and names the socket in it. */
static bool make_directory(struct runtime_socket *runtime_socket)
{
    const char *const parents[] = {getenv("RUNTIME_DIRECTORY"), getenv("XDG_RUNTIME_DIR"), "/run", "/tmp"};

    for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
        if (make_directory_below(parents[i], runtime_socket->directory, sizeof runtime_socket->directory)) {
            snprintf(runtime_socket->path, sizeof runtime_socket->path, "%s/%s", runtime_socket->directory,
                     RUNTIME_SOCKET_NAME);
            return true;
        }
    }
    log_error("cannot make a runtime directory below $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, /run or /tmp: %s",
              strerror(errno));
    *runtime_socket->directory = '\0';
    return false;
}

/* Binds with mode 0600: whoever may connect may run programs. */
static bool bind_private(int fd, const struct sockaddr_un *address)
{
    mode_t before = umask(0177);
    bool bound = bind(fd, (const struct sockaddr *)address, sizeof *address) == 0;

    umask(before);
    return bound;
}

bool runtime_socket_open(struct runtime_socket *runtime_socket, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *runtime_socket = (struct runtime_socket){.fd = -1};
    if (*path == '\0' && !make_directory(runtime_socket))
        return false;
    if (strlen(path) >= sizeof address.sun_path) {
        log_error("cannot listen on %s: a socket's path has less than %zu bytes", path, sizeof address.sun_path);
        return false;
    }
    if (*path != '\0')
        memcpy(runtime_socket->path, path, strlen(path) + 1);
    memcpy(address.sun_path, runtime_socket->path, sizeof address.sun_path);
    if (!listen_unix_clear(&address))
        goto failed;
    runtime_socket->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (runtime_socket->fd >= 0 && bind_private(runtime_socket->fd, &address) &&
        listen(runtime_socket->fd, BACKLOG) == 0)
        return true;

failed:
    log_error("cannot listen on %s: %s%s", runtime_socket->path, strerror(errno),
              errno == EADDRINUSE ? " (another server's runtime answers there; choose another --local-socket)" : "");
    *runtime_socket->path = '\0'; /* not ours to remove */
    runtime_socket_close(runtime_socket);
    return false;
}

/* The socket first: whoever owns the directory may put another in its place. */
void runtime_socket_give(const struct runtime_socket *runtime_socket, const struct privileges *privileges)
{
    const char *const paths[] = {runtime_socket->path, runtime_socket->directory};

    for (size_t i = 0; privileges->are_dropped && i < sizeof paths / sizeof *paths; i++) {
        if (*paths[i] != '\0' && lchown(paths[i], privileges->uid, privileges->gid) < 0)
            log_warn("cannot make %s the workers' own: %s", paths[i], strerror(errno));
    }
}

void runtime_socket_close(struct runtime_socket *runtime_socket)
{
    if (runtime_socket->fd >= 0)
        close(runtime_socket->fd);
    runtime_socket->fd = -1;
    if (*runtime_socket->path != '\0' && unlink(runtime_socket->path) < 0 && errno != ENOENT)
        log_warn("cannot remove %s: %s", runtime_socket->path, strerror(errno));
    if (*runtime_socket->directory != '\0' && rmdir(runtime_socket->directory) < 0)
        log_warn("cannot remove %s: %s", runtime_socket->directory, strerror(errno));
    *runtime_socket->path = *runtime_socket->directory = '\0';
}
