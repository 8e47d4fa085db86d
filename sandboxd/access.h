/* access: who may speak to a sandbox, and as whom (spec/e2b.md 0.7, 0.12). */
#ifndef SANDBOXD_ACCESS_H
#define SANDBOXD_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

/* Compares without telling by its time where they differ. */
bool access_token_equal(const char *given, const char *expected);

/*
 * Whether commands can run as this user. There is one uid in a sandbox: root is accepted, because SDKs ask for it, and
 * means the same uid 1000.
 */
bool access_user_exists(const char *name);

/* What is signed. */
struct access_signed {
    const char *path;      /* as it stands in the query, decoded and not resolved */
    const char *operation; /* read or write */
    const char *user;      /* "" when none was given */
    const char *token;
    const char *expiration; /* Unix seconds, or NULL */
};

/* Whether a signature, v1_ and base64, fits. Does not look at the time. */
bool access_signature_fits(const char *given, const struct access_signed *signed_text);

#define ACCESS_USER_MAX_BYTES 256

/* Reads the user of an Authorization header into name; false when it is not Basic. The password is ignored. */
bool access_basic_user(const char *authorization, char name[static ACCESS_USER_MAX_BYTES])
    __attribute__((warn_unused_result));

#endif
