/*
 * timer: a libevent timer in milliseconds.
 */
#ifndef WORKER_TIMER_H
#define WORKER_TIMER_H

#include <event2/event.h>
#include <stdint.h>

/* (Re)starts a timer or periodic event; a time that is already past means the next turn of the loop. */
static inline void timer_start(struct event *timer, int64_t ms)
{
    if (ms < 0)
        ms = 0;
    event_add(timer, &(struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000});
}

#endif
