/*
 * announce: what an operator sees of the service as a whole: the log at start and the STATUS= of the service manager.
 */
#ifndef MASTER_ANNOUNCE_H
#define MASTER_ANNOUNCE_H

#include "common/scoreboard.h"
#include "common/settings.h"
#include "master/listen.h"
#include "master/workers.h"

#include <stddef.h>
#include <stdint.h>

#define ANNOUNCE_TEXT_MAX_BYTES   520
#define ANNOUNCE_NOTICE_MAX_BYTES 200

/* What was told, so that it is told again only when it changes. Zero-initialised. */
struct announcement {
    char notice[ANNOUNCE_NOTICE_MAX_BYTES]; /* what an operator has to know besides: "" nothing */
    char told[ANNOUNCE_TEXT_MAX_BYTES];
    int64_t told_ms;
};

/* What the text is made from. */
struct announced {
    const struct scoreboard *scoreboard;
    struct workers *workers;
    const struct listeners *listeners;
};

/* The bound addresses, separated by spaces. */
void announce_addresses(const struct listeners *listeners, char *out, size_t size);

/* Logs and tells READY=1. */
void announce_ready(struct announcement *announcement, const struct announced *of);
/* Tells STATUS= when it has changed, at most once a second. */
void announce_status(struct announcement *announcement, const struct announced *of, int64_t now_ms);

/* Sets the notice; it stands behind the counts until it is replaced by another, or by "". Control bytes become blanks.
 */
void announce_notice(struct announcement *announcement, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
