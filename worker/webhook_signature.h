/*
 * webhook_signature: did the sandbox service send this event? (http-api.md section 13, e2b.md 0.11 and A.7). Pure; the
 * time taken tells nothing of the right signature.
 */
#ifndef WORKER_WEBHOOK_SIGNATURE_H
#define WORKER_WEBHOOK_SIGNATURE_H

#include "worker/span.h"

/*
 * signature: the value of `e2b-signature`. Either of the two that are in use: SHA-256 of secret and body in base64 of
 * either alphabet, with or without padding; or HMAC-SHA256 of the body in hex, also behind `sha256=`.
 */
bool webhook_signature_fits(struct span secret, struct span body, struct span signature);

#endif
