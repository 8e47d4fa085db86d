/*
 * stray_search: finds sandboxes of a run whose id we never learned, and hands them to the kill queue (e2b.md A.6).
 *
 * A create has no idempotency key: one that was cut, timed out or tried several times may have left a sandbox. Its
 * metadata (request_id, sandstorm_instance) find it: at once, after 5 s, and 75 s after the create was sent, because
 * the API may work on it for 70 s. A worker that takes a search over goes on from there: it does not begin anew, or
 * workers that are replaced often would never come to its end. The sandbox's time to live is the net below.
 */
#ifndef WORKER_STRAY_SEARCH_H
#define WORKER_STRAY_SEARCH_H

#include "worker/kill_queue.h"

/* From a create to the last lookup. */
#define STRAY_SEARCH_MS 75000

struct stray_search;

/* kills and the strings stay with the caller. */
struct stray_search *stray_search_new(struct http_client *http, struct event_base *base, struct kill_queue *kills,
                                      const char *instance) __attribute__((warn_unused_result));
/* Leases of searches that are not over stay as they are: another worker goes on. */
void stray_search_free(struct stray_search *search);

/* The run whose sandboxes are looked for. */
struct stray_order {
    struct e2b_service *service;
    const char *run_id;
    const char *own_sandbox_id;  /* the run's own, which is left alone; NULL: none */
    int64_t until_ms;            /* CLOCK_MONOTONIC: the last lookup */
    int64_t expires_ms;          /* as for a kill_order */
    struct run_lease_name lease; /* cleared when the search is over; id 0: none */
};

void stray_search_add(struct stray_search *search, const struct stray_order *order);

/* Lookups that are in flight right now; the later ones of a leaving worker are given up. */
size_t stray_search_in_flight(const struct stray_search *search);

#endif
