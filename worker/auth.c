#include "worker/auth.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

static void add_key(struct auth *auth, const char *key)
{
    if (*key != '\0')
        SHA256((const unsigned char *)key, strlen(key), auth->digests[auth->key_count++]);
}

void auth_init(struct auth *auth, const char *current, const char *previous)
{
    auth->key_count = 0;
    if (*current == '\0')
        return;
    add_key(auth, current);
    add_key(auth, previous);
}

/* What follows `Bearer `; empty for another scheme, a bare token, or nothing. */
static struct span token_of(struct span authorization)
{
    static const char scheme[] = "Bearer";
    const size_t length = sizeof scheme - 1;
    const char *bytes = authorization.bytes;

    if (bytes == NULL || authorization.length <= length || strncasecmp(bytes, scheme, length) != 0 ||
        (bytes[length] != ' ' && bytes[length] != '\t'))
        return (struct span){NULL, 0};
    return span_trim((struct span){bytes + length, authorization.length - length});
}

enum auth_result auth_check(const struct auth *auth, struct span authorization)
{
    struct span token = token_of(authorization);
    unsigned char digest[AUTH_DIGEST_BYTES];
    int equal = 0;

    if (auth->key_count == 0)
        return AUTH_OK;
    if (token.length == 0)
        return AUTH_MISSING;
    for (size_t i = 0; i < token.length; i++) {
        if (token.bytes[i] < 0x21 || token.bytes[i] > 0x7e)
            return AUTH_WRONG;
    }
    SHA256((const unsigned char *)token.bytes, token.length, digest);
    for (size_t i = 0; i < auth->key_count; i++)
        equal |= CRYPTO_memcmp(digest, auth->digests[i], sizeof digest) == 0;
    return equal ? AUTH_OK : AUTH_WRONG;
}

bool auth_equal(struct span left, struct span right)
{
    unsigned char left_digest[AUTH_DIGEST_BYTES], right_digest[AUTH_DIGEST_BYTES];

    SHA256((const unsigned char *)left.bytes, left.length, left_digest);
    SHA256((const unsigned char *)right.bytes, right.length, right_digest);
    return CRYPTO_memcmp(left_digest, right_digest, sizeof left_digest) == 0;
}
