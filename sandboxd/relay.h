/*
 * relay: two connected sockets whose bytes go to each other, with back-pressure, half-close, the sandbox's pace, and an
 * end when nothing moves any more.
 *
 * What is read from one side and not yet taken by the other is at most RELAY_HIGH_WATER_BYTES and one read.
 */
#ifndef SANDBOXD_RELAY_H
#define SANDBOXD_RELAY_H

#include "sandboxd/pace.h"
#include "sandboxd/proxy_request.h"

#include <event2/bufferevent.h>

#define RELAY_HIGH_WATER_BYTES (64 * 1024)
/* Silence of both sides: longer than a model thinks, and than what keeps a stream alive. */
#define RELAY_IDLE_S 3600

struct relay;

/*
 * Begins to relay, first what the buffers of both hold. Takes both bufferevents, in every case. All relays of a sandbox
 * share its pace, which must outlive them. Of the inside's bytes only those of body, if that is not NULL, are passed
 * on; it is copied. ended(arg) is called once, from the loop: both directions are at their end, a side broke, or both
 * were silent too long. NULL when memory is out.
 */
struct relay *relay_new(struct bufferevent *inside, struct bufferevent *outside, struct pace *pace,
                        const struct proxy_body *body, void (*ended)(void *arg), void *arg)
    __attribute__((warn_unused_result));

/* Closes both sides. */
void relay_free(struct relay *relay);

#endif
