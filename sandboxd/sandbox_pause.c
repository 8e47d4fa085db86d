/*
 * sandbox_pause: what changes a sandbox's time, and stops it (spec/e2b.md 0.5, B.2, B.3).
 *
 * A paused sandbox is kept as it is: init stops every process in it, memory and files stay. It has no end until it runs
 * again; whoever wants its memory back kills it.
 */
#include "sandboxd/sandbox_internal.h"

#include "common/log.h"

/* Cuts what a client has open here. */
static void cut_traffic(struct sandbox *sandbox)
{
    struct sandbox_watch *watch = LIST_FIRST(&sandbox->private->watches);

    while (watch != NULL) {
        struct sandbox_watch *following = LIST_NEXT(watch, next);

        if (watch->paused != NULL)
            watch->paused(watch);
        watch = following;
    }
}

static void ignore_answer(struct control_message *answer, void *arg)
{
    (void)answer;
    (void)arg;
}

bool sandbox_pause(struct sandbox *sandbox, sandbox_answer paused, void *arg)
{
    if (!sandbox_order_freeze(sandbox, true, paused != NULL ? paused : ignore_answer, arg))
        return false;
    log_info("sandbox %s pauses", sandbox->id);
    sandbox->state = SANDBOX_PAUSED;
    evtimer_del(sandbox->private->timer);
    gettimeofday(&sandbox->end_at, NULL);
    cut_traffic(sandbox);
    return true;
}

bool sandbox_resume(struct sandbox *sandbox, int timeout_s)
{
    sandbox->state = SANDBOX_RUNNING;
    if (!sandbox_order_freeze(sandbox, false, ignore_answer, NULL)) {
        sandbox->state = SANDBOX_PAUSED;
        return false;
    }
    log_info("sandbox %s resumes", sandbox->id);
    sandbox_set_lifetime(sandbox, timeout_s);
    return true;
}

void sandbox_set_timeout(struct sandbox *sandbox, int timeout_s)
{
    if (sandbox->state == SANDBOX_RUNNING)
        sandbox_set_lifetime(sandbox, timeout_s);
}

void sandbox_extend(struct sandbox *sandbox, int timeout_s)
{
    const struct timeval *end = &sandbox->end_at;
    struct timeval wanted;

    gettimeofday(&wanted, NULL);
    wanted.tv_sec += timeout_s;
    if (wanted.tv_sec > end->tv_sec || (wanted.tv_sec == end->tv_sec && wanted.tv_usec > end->tv_usec))
        sandbox_set_timeout(sandbox, timeout_s);
}
