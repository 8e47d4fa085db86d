/*
 * clock: the two clocks.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in milliseconds: the clock of every heartbeat and deadline. */
int64_t monotonic_ms(void);
/* CLOCK_REALTIME in microseconds since 1970: what people are shown. */
int64_t realtime_us(void);

#endif
