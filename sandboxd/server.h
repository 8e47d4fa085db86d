/*
 * server: HTTP/1.1 on one listening socket, for the control API and for the traffic of all sandboxes (spec/e2b.md B.1).
 *
 * What names a sandbox, by E2b-Sandbox-Id or by the first label of Host, is for its envd; the rest is for the API.
 */
#ifndef SANDBOXD_SERVER_H
#define SANDBOXD_SERVER_H

#include "sandboxd/api_key.h"
#include "sandboxd/daemon.h"

/* Bodies above this are answered 413, for they are held in memory. Files come by the intake, without a limit. */
#define SERVER_API_BODY_MAX_BYTES ((size_t)16 * 1024 * 1024)
#define SERVER_RPC_BODY_MAX_BYTES ((size_t)64 * 1024 * 1024)

struct server;

/*
 * Accepts on the listening socket from now on, and takes it. The control API asks for one of the keys, which must
 * outlive the server; NULL: for none. NULL when memory is out.
 */
struct server *server_new(struct daemon *daemon, int listen_fd, const struct api_keys *keys)
    __attribute__((warn_unused_result));
void server_free(struct server *server);

#endif
