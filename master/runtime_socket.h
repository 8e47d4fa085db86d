/*
 * runtime_socket: the unix socket of the local runtime. Bound and held by the master, so that a sandboxd that is
 * restarted loses no connection: they wait in the socket's queue. Failures are logged here.
 */
#ifndef MASTER_RUNTIME_SOCKET_H
#define MASTER_RUNTIME_SOCKET_H

#include "master/privileges.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/un.h>

#define RUNTIME_SOCKET_NAME       "sandboxd.sock"
#define RUNTIME_SOCKET_PATH_BYTES sizeof((struct sockaddr_un *)NULL)->sun_path

struct runtime_socket {
    int fd; /* listening, non-blocking, close-on-exec; -1: not open */
    char directory[RUNTIME_SOCKET_PATH_BYTES - sizeof RUNTIME_SOCKET_NAME]; /* made by us, private; "": none */
    char path[RUNTIME_SOCKET_PATH_BYTES];
};

/*
 * Listens on path, or, when that is "", in a fresh directory (mode 0700) below $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR,
 * /run or /tmp, the first that lets us. A socket file that is in the way is replaced only when nobody answers on it.
 */
bool runtime_socket_open(struct runtime_socket *runtime_socket, const char *path) __attribute__((warn_unused_result));
/* Lets workers of these privileges connect, and nobody else but root. */
void runtime_socket_give(const struct runtime_socket *runtime_socket, const struct privileges *privileges);
/* Closes and removes what was made. */
void runtime_socket_close(struct runtime_socket *runtime_socket);

#endif
