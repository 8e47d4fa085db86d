/* api_lifecycle: the control API's calls that change a sandbox's life: time, pause, end (spec/e2b.md 0.5, B.3). */
#include "sandboxd/api.h"
#include "sandboxd/exchange.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_DEFAULT_V2_S 300
#define RESUME_DEFAULT_S     15
#define REFRESH_MIN_S        15
#define REFRESH_MAX_S        3600

/* What may stand for an amount of seconds in a body. */
struct seconds_field {
    const char *name;
    int max;
    int missing; /* its value when it is not there; -1: it must be */
};

/* Reads the only field of a body that matters; answers and returns -1 when it is wrong. */
static int read_seconds(struct request *request, const struct seconds_field *field)
{
    json_t *body = request_json(request);
    const json_t *value = json_object_get(body, field->name);
    json_int_t seconds = json_is_integer(value) ? json_integer_value(value) : -1;

    if (body != NULL && (value == NULL || json_is_null(value)))
        seconds = field->missing;
    if (body == NULL)
        reply_error(request->http, 400, "Error when parsing request: not a JSON object");
    else if (seconds < 0)
        reply_error(request->http, 400, "validation error: %s must be an integer of at least 0", field->name);
    else if (seconds > field->max && field->max == SANDBOX_TIMEOUT_MAX_S)
        reply_error(request->http, 400, "Timeout cannot be greater than %d hours", SANDBOX_TIMEOUT_MAX_S / 3600);
    else if (seconds > field->max)
        reply_error(request->http, 400, "validation error: %s must be at most %d", field->name, field->max);
    json_decref(body);
    return seconds > field->max ? -1 : (int)seconds;
}

/* Whether the sandbox runs; answers and returns false when it is paused. */
static bool check_running(struct request *request)
{
    if (request->sandbox->state == SANDBOX_RUNNING)
        return true;
    reply_error(request->http, 409, "Sandbox \"%s\" is paused", request->sandbox->id);
    return false;
}

/* --- its time ------------------------------------------------------------------------------------- */

void api_timeout(struct request *request)
{
    static const struct seconds_field timeout = {.name = "timeout", .max = INT32_MAX, .missing = -1};
    int seconds = read_seconds(request, &timeout);

    if (seconds < 0 || !check_running(request))
        return;
    sandbox_set_timeout(request->sandbox, seconds > SANDBOX_TIMEOUT_MAX_S ? SANDBOX_TIMEOUT_MAX_S : seconds);
    reply_empty(request->http, 204);
}

void api_refresh(struct request *request)
{
    static const struct seconds_field duration = {.name = "duration", .max = REFRESH_MAX_S, .missing = REFRESH_MIN_S};
    int seconds = read_seconds(request, &duration);

    if (seconds < 0 || !check_running(request))
        return;
    sandbox_extend(request->sandbox, seconds < REFRESH_MIN_S ? REFRESH_MIN_S : seconds);
    reply_empty(request->http, 204);
}

/* --- pause ---------------------------------------------------------------------------------------- */

/* Lets it run again and answers. */
static void resume(struct request *request, int timeout_s)
{
    if (sandbox_resume(request->sandbox, timeout_s))
        reply_json(request->http, 201, api_created(request->sandbox));
    else
        reply_error(request->http, 500, "too many requests wait for this sandbox");
}

void api_connect(struct request *request)
{
    const struct seconds_field timeout = {
        .name = "timeout", .max = SANDBOX_TIMEOUT_MAX_S, .missing = request->is_v2 ? CONNECT_DEFAULT_V2_S : -1};
    int seconds = read_seconds(request, &timeout);

    if (seconds < 0)
        return;
    if (request->sandbox->state == SANDBOX_PAUSED) {
        resume(request, seconds);
        return;
    }
    sandbox_extend(request->sandbox, seconds);
    reply_json(request->http, 200, api_created(request->sandbox));
}

void api_resume(struct request *request)
{
    static const struct seconds_field timeout = {
        .name = "timeout", .max = SANDBOX_TIMEOUT_MAX_S, .missing = RESUME_DEFAULT_S};
    int seconds = read_seconds(request, &timeout);

    if (seconds < 0)
        return;
    if (request->sandbox->state == SANDBOX_PAUSED)
        resume(request, seconds);
    else
        reply_error(request->http, 409, "Sandbox %s is already running", request->sandbox->id);
}

/* A call that waits for its sandbox, which may end before. */
struct waiting {
    struct exchange *exchange; /* NULL: the client left */
    struct sandbox_watch watch;
    char id[SANDBOX_ID_BYTES + 1];
};

static void on_waiting_gone(void *arg)
{
    struct waiting *waiting = arg;

    waiting->exchange = NULL;
}

static void on_paused(struct control_message *answer, void *arg)
{
    struct waiting *waiting = arg;

    (void)answer;
    sandbox_watch_remove(&waiting->watch);
    if (waiting->exchange != NULL)
        reply_empty(exchange_release(waiting->exchange), 204);
    free(waiting);
}

/* It ended before all its processes were stopped. */
static void on_ended_instead(struct sandbox_watch *watch)
{
    struct waiting *waiting = (struct waiting *)((char *)watch - offsetof(struct waiting, watch));

    if (waiting->exchange != NULL)
        reply_no_such(exchange_release(waiting->exchange), waiting->id);
    free(waiting);
}

void api_pause(struct request *request)
{
    struct sandbox *sandbox = request->sandbox;
    struct waiting *waiting;

    if (sandbox->state == SANDBOX_PAUSED) {
        reply_error(request->http, 409, "Error pausing sandbox - sandbox '%s' is already paused", sandbox->id);
        return;
    }
    waiting = memory_new(sizeof *waiting);
    if (!sandbox_pause(sandbox, on_paused, waiting)) {
        free(waiting);
        reply_error(request->http, 500, "Error pausing sandbox");
        return;
    }
    strcpy(waiting->id, sandbox->id);
    waiting->watch.ended = on_ended_instead;
    sandbox_watch_add(sandbox, &waiting->watch);
    waiting->exchange = exchange_new(request->http, on_waiting_gone, waiting);
}

/* --- the end -------------------------------------------------------------------------------------- */

/* A delete that waits for the end. */
struct deletion {
    struct exchange *exchange; /* NULL: the client left */
};

static void on_deletion_gone(void *arg)
{
    struct deletion *deletion = arg;

    deletion->exchange = NULL;
}

static void on_deleted(void *arg)
{
    struct deletion *deletion = arg;

    if (deletion->exchange != NULL)
        reply_empty(exchange_release(deletion->exchange), 204);
    free(deletion);
}

void api_delete(struct request *request)
{
    struct deletion *deletion = memory_new(sizeof *deletion);

    deletion->exchange = exchange_new(request->http, on_deletion_gone, deletion);
    sandbox_end(request->sandbox, "deleted", on_deleted, deletion);
}

/* --- what a machine alone cannot, or need not ----------------------------------------------------- */

void api_unimplemented(struct request *request)
{
    reply_error(request->http, 501, "sandboxd does not have this call");
}
