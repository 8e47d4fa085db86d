/* fnv1a: tells texts and states apart, against chance, not against an enemy. */
#ifndef COMMON_FNV1A_H
#define COMMON_FNV1A_H

#include <stddef.h>
#include <stdint.h>

#define FNV1A_START UINT64_C(0xcbf29ce484222325)
#define FNV1A_PRIME UINT64_C(0x100000001b3)

/* The hash so far, FNV1A_START at first, with these bytes behind what it holds. */
static inline uint64_t fnv1a(uint64_t hash, const void *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ ((const unsigned char *)bytes)[i]) * FNV1A_PRIME;
    return hash;
}

#endif
