/*
 * byte_space: room for bytes that grow at the end.
 */
#ifndef WORKER_BYTE_SPACE_H
#define WORKER_BYTE_SPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

/* Makes room for `wanted` bytes, at least doubling. False for lack of memory: then nothing has changed. */
__attribute__((warn_unused_result)) static inline bool byte_space_reserve(char **bytes, size_t *capacity, size_t wanted)
{
    size_t larger = *capacity * 2 > wanted ? *capacity * 2 : wanted;
    char *grown;

    if (wanted <= *capacity)
        return true;
    grown = realloc(*bytes, larger);
    if (grown == NULL)
        return false;
    *bytes = grown;
    *capacity = larger;
    return true;
}

#endif
