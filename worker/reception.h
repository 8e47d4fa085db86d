/*
 * reception: what becomes of a request once its head is complete, and before a byte of its body is read: the checks (2)
 * to (5) of http-api.md 2.6. It is sent on to a route, or answered at once.
 */
#ifndef WORKER_RECEPTION_H
#define WORKER_RECEPTION_H

#include "common/settings.h"
#include "worker/peers.h"
#include "worker/request_guard.h"
#include "worker/server.h"

struct reception;

/* routes and context are those of server_new(). NULL for lack of memory. */
struct reception *reception_new(const struct settings *settings, const struct route *routes, void *context)
    __attribute__((warn_unused_result));
void reception_free(struct reception *reception);

/* What is known of a request that was let in, or refused. */
struct admission {
    const struct route *route;               /* NULL: it was answered */
    const char *allow_origin;                /* of cors_allow_origin(): later refusals of this request carry it, too */
    int status;                              /* of that answer */
    bool head_only;                          /* the request is HEAD */
    char forwarded_for[PEER_NAME_MAX_BYTES]; /* the client a trusted proxy names; "": it is the peer */
};

/* Writes the answer of a request that goes no further into output. */
struct admission reception_admit(struct reception *reception, const struct request_head *head, const struct peer *peer,
                                 struct evbuffer *output) __attribute__((warn_unused_result));

/*
 * Refuses what was let in, or never got so far (an empty admission): 400, 408, 413, 414, 431, or the 503 of a worker
 * that holds too many bodies.
 */
void reception_refuse(const struct admission *admission, int status, const struct peer *peer, struct evbuffer *output);

/* Is this peer one of trusted_proxies? */
bool reception_trusts(const struct reception *reception, const char *peer);

/* The 400 of a client that speaks plain HTTP where TLS is served. */
void reception_refuse_plain(const struct peer *peer, struct evbuffer *output);

/* The name of a peer, or whom a trusted proxy names for it. */
const char *reception_client(const struct admission *admission, const struct peer *peer);
/* Logs that a client was refused: of each status within the bounds of log_limit.h. */
void reception_log_refusal(const struct admission *admission, const struct peer *peer, int status, const char *reason);

#endif
