/*
 * timers: what waits in an event base, looked at and fired before its time: no test waits for a back-off.
 */
#ifndef TESTS_UNIT_TIMERS_H
#define TESTS_UNIT_TIMERS_H

#include <event2/event.h>
#include <event2/event_struct.h>
#include <stdint.h>
#include <time.h>

/* libevent's clock is behind by a tick of the kernel's; and part of a millisecond is none. */
#define TIMER_TICK_MS 12
/* Above them a timeout has marks of libevent's own. */
#define TIMER_MICROSECONDS 0xfffff

static int64_t timers_began_ms;

static inline int64_t timers_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Before a timer is set whose wait is asserted. */
static inline void timers_begin(void)
{
    timers_began_ms = timers_now_ms();
}

/* What is left of a wait, at a look some time after timers_begin(), however late that is. */
static inline void assert_wait(int64_t left_ms, int64_t least_ms, int64_t most_ms)
{
    int64_t passed_ms = timers_now_ms() - timers_began_ms;

    if (left_ms > most_ms || left_ms < least_ms - passed_ms - TIMER_TICK_MS)
        fail_msg("%lld ms are left of %lld to %lld after at most %lld", (long long)left_ms, (long long)least_ms,
                 (long long)most_ms, (long long)passed_ms);
}

/* The timers that fire first and last; events are NULL when none waits. */
struct waiting_timers {
    struct event *shortest, *longest;
    int64_t shortest_ms, longest_ms; /* from now */
};

static inline int note_timer(const struct event_base *base, const struct event *event, void *context)
{
    struct waiting_timers *found = context;
    int64_t left_ms;

    (void)base;
    if (!event_pending(event, EV_TIMEOUT, NULL))
        return 0;
    left_ms = (int64_t)event->ev_timeout.tv_sec * 1000 + (event->ev_timeout.tv_usec & TIMER_MICROSECONDS) / 1000 -
              timers_now_ms();
    if (found->shortest == NULL || left_ms < found->shortest_ms) {
        found->shortest = (struct event *)(uintptr_t)event;
        found->shortest_ms = left_ms;
    }
    if (found->longest == NULL || left_ms > found->longest_ms) {
        found->longest = (struct event *)(uintptr_t)event;
        found->longest_ms = left_ms;
    }
    return 0;
}

static inline struct waiting_timers waiting_timers(struct event_base *base)
{
    struct waiting_timers found = {0};

    event_base_foreach_event(base, note_timer, &found);
    return found;
}

/* This one alone: the loop would also fire what is due by now on a busy machine. */
static inline void fire_timer(struct event *timer)
{
    assert_non_null(timer);
    event_del(timer);
    event_get_callback(timer)(-1, EV_TIMEOUT, event_get_callback_arg(timer));
}

/* Lets it fire now; fails when none waits. Returns the milliseconds it would still have waited. */
static inline int64_t fire_shortest_timer(struct event_base *base)
{
    struct waiting_timers timers = waiting_timers(base);

    fire_timer(timers.shortest);
    return timers.shortest_ms;
}

static inline int64_t fire_longest_timer(struct event_base *base)
{
    struct waiting_timers timers = waiting_timers(base);

    fire_timer(timers.longest);
    return timers.longest_ms;
}

#endif
