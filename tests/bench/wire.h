/*
 * wire: what the simulator prints and the load generator checks: one numbered event as a line of JSON.
 *
 * Its members come in this order and nothing stands between them, so that both sides find them without a parser. The
 * time is CLOCK_MONOTONIC of the machine that both run on.
 */
#ifndef BENCH_WIRE_H
#define BENCH_WIRE_H

#include <inttypes.h>
#include <stdint.h>
#include <time.h>

#define RUN_ID_BYTES 16

/* number, run id, microseconds */
#define WIRE_FORMAT    "{\"type\":\"assistant\",\"seq\":%" PRIu64 ",\"run\":\"%.16s\",\"at\":%" PRIu64 ",\"pad\":\""
#define WIRE_END       "\"}"
#define WIRE_MIN_BYTES 128 /* of a line, so that everything has room */

static inline uint64_t wire_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

#endif
