/* memory: small objects without which a request cannot be served at all. */
#ifndef SANDBOXD_MEMORY_H
#define SANDBOXD_MEMORY_H

#include <stddef.h>

/* Zeroed memory, freed with free(). Never NULL: without these few bytes the process cannot go on, and ends. */
void *memory_new(size_t bytes) __attribute__((returns_nonnull, malloc, warn_unused_result));

#endif
