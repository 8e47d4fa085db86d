/*
 * timers: what waits in an event base, looked at and fired before its time: no test waits for a back-off.
 */
#ifndef TESTS_UNIT_TIMERS_H
#define TESTS_UNIT_TIMERS_H

#include <event2/event.h>
#include <stdint.h>
#include <sys/time.h>

/* What a look at a timer may be off: late on a busy machine, early by libevent's idea of the wall clock. */
#define TIMER_LATE_MS  200
#define TIMER_EARLY_MS 20

#define assert_wait(ms, least_ms, most_ms)                                                                             \
    assert_in_range((ms) + TIMER_LATE_MS, (least_ms), (most_ms) + TIMER_LATE_MS + TIMER_EARLY_MS)

/* The timers that fire first and last; events are NULL when none waits. */
struct waiting_timers {
    struct event *shortest, *longest;
    int64_t shortest_ms, longest_ms; /* from now */
};

static inline int note_timer(const struct event_base *base, const struct event *event, void *context)
{
    struct waiting_timers *found = context;
    struct timeval due, now, left;
    int64_t left_ms;

    (void)base;
    if (!event_pending(event, EV_TIMEOUT, &due))
        return 0;
    gettimeofday(&now, NULL);
    timersub(&due, &now, &left);
    left_ms = left.tv_sec * 1000 + left.tv_usec / 1000;
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

static inline void fire_timer(struct event_base *base, struct event *timer)
{
    assert_non_null(timer);
    event_del(timer);
    event_active(timer, EV_TIMEOUT, 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
}

/* Lets it fire now; fails when none waits. Returns the milliseconds it would still have waited. */
static inline int64_t fire_shortest_timer(struct event_base *base)
{
    struct waiting_timers timers = waiting_timers(base);

    fire_timer(base, timers.shortest);
    return timers.shortest_ms;
}

static inline int64_t fire_longest_timer(struct event_base *base)
{
    struct waiting_timers timers = waiting_timers(base);

    fire_timer(base, timers.longest);
    return timers.longest_ms;
}

#endif
