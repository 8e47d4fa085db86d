/*
 * template_memory: which templates a sandbox service was seen not to have (http-api.md 6.4).
 *
 * For a minute a worker does not ask for them again. What is known for one key does not count for another.
 */
#ifndef WORKER_TEMPLATE_MEMORY_H
#define WORKER_TEMPLATE_MEMORY_H

#include "worker/e2b.h"

#define TEMPLATE_MEMORY_MS    60000
#define TEMPLATE_MEMORY_COUNT 16 /* the oldest is forgotten */

/* Zeroed it knows nothing. Keys are kept as digests only. */
struct template_memory {
    struct {
        unsigned char digest[32];
        int64_t until_ms; /* monotonic; 0: free */
    } entries[TEMPLATE_MEMORY_COUNT];
};

void template_memory_note(struct template_memory *memory, const struct e2b_service *service, const char *template_name,
                          int64_t now_ms);
bool template_memory_is_missing(const struct template_memory *memory, const struct e2b_service *service,
                                const char *template_name, int64_t now_ms);

#endif
