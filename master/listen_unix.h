/*
 * listen_unix: listening on a unix socket: its file, mode and owner. Used by listen.
 */
#ifndef MASTER_LISTEN_UNIX_H
#define MASTER_LISTEN_UNIX_H

#include "common/settings.h"
#include "master/listen.h"

#include <stdbool.h>
#include <sys/un.h>

/* Are unix_mode and unix_owner good? False after a log line. */
bool listen_unix_check(const struct settings *settings) __attribute__((warn_unused_result));

/*
 * Listens on a path, with mode and owner of the settings from the first moment on. A socket file on which nobody
 * listens is replaced. Returns the descriptor, or -1 with errno; notes the file in about.
 */
int listen_unix_open(const char *path, const struct settings *settings, struct listener *about)
    __attribute__((warn_unused_result));

/* True when the path is free, or was made free of a socket on which nobody listens; else errno says why not. */
bool listen_unix_clear(const struct sockaddr_un *address) __attribute__((warn_unused_result));

/* Removes the file of a socket that is being closed, unless it is another's by now. */
void listen_unix_remove(const struct listener *about);

#endif
