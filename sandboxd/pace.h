/*
 * pace: how fast one sandbox may use what all share. Here: the bytes of its connections, which one process relays.
 *
 * It may be ahead by PACE_BURST_BYTES; beyond that it waits.
 */
#ifndef SANDBOXD_PACE_H
#define SANDBOXD_PACE_H

#include <stddef.h>
#include <stdint.h>

#define PACE_BYTES_PER_S (64 * INT64_C(1024) * 1024)
#define PACE_BURST_BYTES (8 * INT64_C(1024) * 1024)

/* All zero: nothing was used yet. */
struct pace {
    int64_t used_bytes; /* and not yet forgotten */
    int64_t seen_ms;    /* when it was last brought up to date */
};

/* Notes that bytes were used; how many milliseconds to wait before using more, 0: none. */
int64_t pace_use(struct pace *pace, size_t bytes, int64_t now_ms);

#endif
