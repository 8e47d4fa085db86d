#include "master/announce.h"

#include "common/clock.h"
#include "common/log.h"
#include "master/notify.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STATUS_INTERVAL_MS  1000
#define ADDRESSES_MAX_BYTES 160

void announce_addresses(const struct listeners *listeners, char *out, size_t size)
{
    size_t used = 0;

    *out = '\0';
    for (size_t i = 0; i < listeners->count && used < size; i++) {
        char name[LISTEN_NAME_MAX_BYTES];

        used +=
            (size_t)snprintf(out + used, size - used, "%s%s", i > 0 ? " " : "", listen_name(listeners->fds[i], name));
    }
}

static const char *plural(size_t count)
{
    return count == 1 ? "" : "s";
}

/* "4 workers, 12 runs, listening on 127.0.0.1:8000; 2 old workers drain; reload refused: ..." */
static void compose(const struct announcement *announcement, const struct announced *of,
                    char out[static ANNOUNCE_TEXT_MAX_BYTES])
{
    size_t serving = workers_count_in(of->workers, CHILD_SERVING);
    size_t draining = workers_count_in(of->workers, CHILD_DRAINING);
    unsigned runs = atomic_load(&of->scoreboard->live_runs);
    char addresses[ADDRESSES_MAX_BYTES], drain[64] = "";

    announce_addresses(of->listeners, addresses, sizeof addresses);
    if (draining > 0)
        snprintf(drain, sizeof drain, "; %zu old worker%s", draining, draining == 1 ? " drains" : "s drain");
    snprintf(out, ANNOUNCE_TEXT_MAX_BYTES, "%zu worker%s, %u run%s, listening on %s%s%s%s", serving, plural(serving),
             runs, plural(runs), addresses, drain, *announcement->notice != '\0' ? "; " : "", announcement->notice);
}

static void remember(struct announcement *announcement, const char *text)
{
    snprintf(announcement->told, sizeof announcement->told, "%s", text);
    announcement->told_ms = monotonic_ms();
}

void announce_ready(struct announcement *announcement, const struct announced *of)
{
    char text[ANNOUNCE_TEXT_MAX_BYTES];

    compose(announcement, of, text);
    log_info("ready: %s", text);
    notify_ready(text);
    remember(announcement, text);
}

void announce_status(struct announcement *announcement, const struct announced *of, int64_t now_ms)
{
    char text[ANNOUNCE_TEXT_MAX_BYTES];

    if (now_ms - announcement->told_ms < STATUS_INTERVAL_MS)
        return;
    compose(announcement, of, text);
    if (strcmp(text, announcement->told) == 0)
        return;
    notify_status(text);
    remember(announcement, text);
}

void announce_notice(struct announcement *announcement, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(announcement->notice, sizeof announcement->notice, format, args);
    va_end(args);
    for (char *c = announcement->notice; *c != '\0'; c++)
        *c = iscntrl((unsigned char)*c) ? ' ' : *c;
}
