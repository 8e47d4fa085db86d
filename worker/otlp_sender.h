/*
 * otlp_sender: requests of one signal to a collector, one at a time, tried again as OTLP/HTTP wants it: after 429, 502,
 * 503 and 504, and where no answer came, with back-off and never earlier than Retry-After.
 *
 * Whether the collector takes what it is sent is logged when it changes, not each time.
 */
#ifndef WORKER_OTLP_SENDER_H
#define WORKER_OTLP_SENDER_H

#include "worker/telemetry_options.h"

#include <event2/buffer.h>
#include <event2/event.h>
#include <stddef.h>

struct otlp_sender;
struct http_client;

/* A request is over, in whatever way: the next one may be sent from within. */
typedef void otlp_sender_done(void *context, enum telemetry_signal signal);

/* The client and the endpoint, which has a URL, stay with the caller. NULL for lack of memory. */
struct otlp_sender *otlp_sender_new(struct event_base *base, struct http_client *http, enum telemetry_signal signal,
                                    const struct telemetry_endpoint *endpoint, otlp_sender_done *on_done, void *context)
    __attribute__((warn_unused_result));
/* What is under way counts as dropped. NULL is allowed. */
void otlp_sender_free(struct otlp_sender *sender);

/* Not yet answered, or waiting to be tried again. */
bool otlp_sender_is_busy(const struct otlp_sender *sender);

/*
 * Sends a whole body, taken over, of so many entries: those that are not taken are counted as dropped. The sender is
 * not busy. Never calls back before it returned.
 */
void otlp_sender_send(struct otlp_sender *sender, struct evbuffer *body, size_t entries);

/* From now on nothing is tried again but what waits for it, once, now. */
void otlp_sender_hurry(struct otlp_sender *sender);

#endif
