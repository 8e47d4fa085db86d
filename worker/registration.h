/*
 * registration: where the sandbox service is told to send its events (http-api.md section 13): one for the instance,
 * made by the worker that the master elected, kept over its death, reloads and upgrades, and deleted when the instance
 * stops. What an instance left that could not delete it is deleted by the next one, if it has a state directory.
 *
 * A failure is logged, and costs nothing but the events.
 */
#ifndef WORKER_REGISTRATION_H
#define WORKER_REGISTRATION_H

#include "worker/run.h"

struct registration;

struct registration_options {
    struct run_host *host;
    const struct environment *environment; /* of the start or reload */
    const char *state_dir;                 /* NULL: nothing is kept */
    const char *url;                       /* webhook_url; "": no events are wanted */
    void (*on_idle)(void *context);        /* nothing is under way any more */
    void *context;
};

/* What the options point to stays with the caller. NULL for lack of memory. */
struct registration *registration_new(const struct registration_options *options) __attribute__((warn_unused_result));
/* Gives up what is under way. NULL is allowed. */
void registration_free(struct registration *registration);

/* This worker was elected: registers what is wanted, unless it is already. */
void registration_start(struct registration *registration);
/* Another one will be: the instance goes on. */
void registration_resign(struct registration *registration);
/* To be called every second or so. */
void registration_tick(struct registration *registration);
/* This worker ends: what it is responsible for is deleted. */
void registration_leave(struct registration *registration);
/* The instance stops: what is registered is deleted, by the worker that hears of it first. */
void registration_stop(struct registration *registration);
/* Is there a request under way? */
bool registration_is_busy(const struct registration *registration);

/* What events are signed with: SANDSTORM_WEBHOOK_SECRET, else what was made for the registration. bytes NULL: none. */
struct span registration_secret(const struct scoreboard *scoreboard, const struct environment *environment);

#endif
