#include "sandboxd/access.h"

#include "common/base64.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool access_token_equal(const char *given, const char *expected)
{
    size_t length = strlen(expected);
    unsigned difference = 0;

    if (strlen(given) != length)
        return false;
    for (size_t i = 0; i < length; i++)
        difference |= (unsigned)(given[i] ^ expected[i]);
    return difference == 0;
}

bool access_signature_fits(const char *given, const struct access_signed *signed_text)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_bytes = 0;
    char expected[sizeof "v1_" + BASE64_ENCODED_BYTES(EVP_MAX_MD_SIZE)] = "v1_";
    char *text = NULL;
    int length = asprintf(&text, "%s:%s:%s:%s%s%s", signed_text->path, signed_text->operation, signed_text->user,
                          signed_text->token, signed_text->expiration == NULL ? "" : ":",
                          signed_text->expiration == NULL ? "" : signed_text->expiration);
    bool done = length >= 0 && EVP_Digest(text, (size_t)length, digest, &digest_bytes, EVP_sha256(), NULL) == 1;

    if (length >= 0)
        free(text);
    if (!done)
        return false;
    base64_encode(digest, digest_bytes, expected + strlen("v1_"));
    expected[strlen("v1_") + BASE64_ENCODED_BYTES(digest_bytes)] = '\0';
    expected[strcspn(expected, "=")] = '\0';
    return access_token_equal(given, expected);
}

bool access_user_exists(const char *name)
{
    return strcmp(name, "user") == 0 || strcmp(name, "root") == 0;
}

bool access_basic_user(const char *authorization, char name[static ACCESS_USER_MAX_BYTES])
{
    static const char scheme[] = "Basic ";
    size_t length, used;

    if (strncasecmp(authorization, scheme, sizeof scheme - 1) != 0)
        return false;
    authorization += sizeof scheme - 1;
    length = strlen(authorization);
    if (length / 4 * 3 + 2 >= ACCESS_USER_MAX_BYTES || !base64_decode_lenient(authorization, length, name, &used))
        return false;
    name[used] = '\0';
    name[strcspn(name, ":")] = '\0';
    return true;
}
