#include "worker/webhook_signature.h"

#include <ctype.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#define DIGEST_BYTES 32
#define BASE64_CHARS 43 /* of a digest, without padding */
#define HEX_CHARS    64

static bool plain_digest(struct span secret, struct span body, unsigned char out[static DIGEST_BYTES])
{
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool good = digest != NULL && EVP_DigestInit_ex(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, secret.bytes, secret.length) == 1 &&
                EVP_DigestUpdate(digest, body.bytes, body.length) == 1 && EVP_DigestFinal_ex(digest, out, NULL) == 1;

    EVP_MD_CTX_free(digest);
    return good;
}

/* The one alphabet, without padding; false when it is no digest's length. */
static bool normalise_base64(struct span given, char out[static BASE64_CHARS])
{
    if (given.length == BASE64_CHARS + 1 && given.bytes[BASE64_CHARS] == '=')
        given.length--;
    if (given.length != BASE64_CHARS)
        return false;
    for (size_t i = 0; i < BASE64_CHARS; i++)
        out[i] = given.bytes[i] == '-' ? '+' : given.bytes[i] == '_' ? '/' : given.bytes[i];
    return true;
}

static bool fits_plain(struct span secret, struct span body, struct span given)
{
    unsigned char digest[DIGEST_BYTES], wanted[BASE64_CHARS + 2];
    char normal[BASE64_CHARS];

    if (!normalise_base64(given, normal) || !plain_digest(secret, body, digest))
        return false;
    EVP_EncodeBlock(wanted, digest, DIGEST_BYTES);
    return CRYPTO_memcmp(wanted, normal, BASE64_CHARS) == 0;
}

static bool fits_hmac(struct span secret, struct span body, struct span given)
{
    static const char prefix[] = "sha256=", digits[] = "0123456789abcdef";
    unsigned char digest[DIGEST_BYTES];
    char wanted[HEX_CHARS], lower[HEX_CHARS];

    if (given.length == sizeof prefix - 1 + HEX_CHARS && memcmp(given.bytes, prefix, sizeof prefix - 1) == 0)
        given = (struct span){given.bytes + sizeof prefix - 1, HEX_CHARS};
    if (given.length != HEX_CHARS || HMAC(EVP_sha256(), secret.bytes, (int)secret.length,
                                          (const unsigned char *)body.bytes, body.length, digest, NULL) == NULL)
        return false;
    for (size_t i = 0; i < HEX_CHARS; i++) {
        wanted[i] = digits[digest[i / 2] >> (i % 2 == 0 ? 4 : 0) & 0xf];
        lower[i] = (char)tolower((unsigned char)given.bytes[i]);
    }
    return CRYPTO_memcmp(wanted, lower, HEX_CHARS) == 0;
}

bool webhook_signature_fits(struct span secret, struct span body, struct span signature)
{
    if (signature.bytes == NULL)
        return false;
    return fits_plain(secret, body, signature) || fits_hmac(secret, body, signature);
}
