/* base64: standard alphabet with padding out; standard or url-safe, padded or not, in. */
#ifndef COMMON_BASE64_H
#define COMMON_BASE64_H

#include <stdbool.h>
#include <stddef.h>

/* Characters that bytes take, without a NUL. */
#define BASE64_ENCODED_BYTES(bytes) (((bytes) + 2) / 3 * 4)

/* Writes BASE64_ENCODED_BYTES(length) characters, no NUL. */
void base64_encode(const void *bytes, size_t length, char *out);

/* Decodes to at most length / 4 * 3 + 2 bytes at out; false when the text is no base64. */
bool base64_decode_lenient(const char *text, size_t length, void *out, size_t *decoded)
    __attribute__((warn_unused_result));

#endif
