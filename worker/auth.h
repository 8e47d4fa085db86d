/*
 * auth: the bearer keys of the server (http-api.md 2.5). Pure. Only digests of the keys are kept and compared, all of
 * them every time, so the time taken tells neither their bytes nor their lengths.
 */
#ifndef WORKER_AUTH_H
#define WORKER_AUTH_H

#include "worker/span.h"

#define AUTH_DIGEST_BYTES 32
#define AUTH_KEYS_MAX     2

struct auth {
    size_t key_count; /* 0: auth is off */
    unsigned char digests[AUTH_KEYS_MAX][AUTH_DIGEST_BYTES];
};

enum auth_result {
    AUTH_OK,
    AUTH_MISSING, /* no bearer token at all */
    AUTH_WRONG,   /* a token, but none of ours */
};

/* Either may be ""; without a current key auth is off. */
void auth_init(struct auth *auth, const char *current, const char *previous);
/* authorization is the value of the header, absent if there was none. */
enum auth_result auth_check(const struct auth *auth, struct span authorization);

/* Are they the same? The time taken tells neither their bytes nor their lengths. */
bool auth_equal(struct span left, struct span right);

#endif
