#include "common/log_limit.h"

#include <stddef.h>

/* A process has one log, and one list. */
static struct log_limit *holding;

static void say_held_back(const struct log_limit *limit)
{
    if (limit->level <= LOG_LEVEL_WARN)
        log_warn("%u more like this within a minute: %s", limit->held_back, limit->like);
    else
        log_info("%u more like this within a minute: %s", limit->held_back, limit->like);
}

/* Takes those out of the list whose minute is over. */
void log_limit_tick(int64_t now_ms)
{
    struct log_limit **place = &holding;

    while (*place != NULL) {
        struct log_limit *limit = *place;

        if (now_ms < limit->until_ms) {
            place = &limit->next;
            continue;
        }
        *place = limit->next;
        say_held_back(limit);
        limit->held_back = 0;
    }
}

bool log_limit_allows(struct log_limit *limit, int64_t now_ms)
{
    if (!log_is_on(limit->level))
        return false;
    if (now_ms >= limit->until_ms) {
        if (limit->held_back > 0)
            log_limit_tick(now_ms);
        limit->until_ms = now_ms + LOG_LIMIT_PERIOD_MS;
        limit->written = 0;
    }
    if (limit->written < LOG_LIMIT_LINES) {
        limit->written++;
        return true;
    }
    if (limit->held_back++ == 0) {
        limit->next = holding;
        holding = limit;
    }
    return false;
}
