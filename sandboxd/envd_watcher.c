/*
 * envd_watcher: the polling form of a watch: CreateWatcher, GetWatcherEvents, RemoveWatcher (spec/e2b.md 0.10).
 *
 * A watcher lives until it is removed, or with its sandbox. Events that nobody asks for stay where they are once there
 * are EVENTS_MAX of them: then in the kernel, whose queue may overflow, and the watcher says so.
 */
#include "sandboxd/envd_call.h"
#include "sandboxd/envd_watch.h"
#include "sandboxd/filesystem_record.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Events that wait to be asked for. */
#define EVENTS_MAX 8192
/* "w" and so many characters. */
#define WATCHER_ID_BYTES 21

struct watcher {
    LIST_ENTRY(watcher) next; /* in its sandbox, once it has an id */
    char id[WATCHER_ID_BYTES + 1];
    struct sandbox *sandbox;
    struct sandbox_watch watch;
    struct envd_call *call;       /* the CreateWatcher that waits; NULL once it was answered */
    struct filesystem_talk *talk; /* NULL once it is over */
    json_t *events;
    enum rpc_code code; /* of why it is over */
    char *message;
};

static void watcher_free(struct watcher *watcher)
{
    filesystem_close(watcher->talk);
    watch_uncount(watcher->sandbox);
    json_decref(watcher->events);
    free(watcher->message);
    free(watcher);
}

static void on_sandbox_ended(struct sandbox_watch *watch)
{
    struct watcher *watcher = (struct watcher *)((char *)watch - offsetof(struct watcher, watch));

    LIST_REMOVE(watcher, next);
    watcher_free(watcher);
}

/* The client of the CreateWatcher left before it was answered. */
static void on_closed(void *arg)
{
    watcher_free(arg);
}

static void make_id(char id[static WATCHER_ID_BYTES + 1])
{
    unsigned char random[WATCHER_ID_BYTES - 1];

    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        log_panic("getrandom failed");
    id[0] = 'w';
    for (size_t i = 0; i < sizeof random; i++)
        id[1 + i] = "abcdefghijklmnopqrstuvwxyz012345"[random[i] % 32];
    id[WATCHER_ID_BYTES] = '\0';
}

/* It watches: from here on it is the sandbox's. */
static void register_watcher(struct watcher *watcher)
{
    struct envd_call *call = watcher->call;

    make_id(watcher->id);
    watcher->call = NULL;
    watcher->watch.ended = on_sandbox_ended;
    sandbox_watch_add(watcher->sandbox, &watcher->watch);
    LIST_INSERT_HEAD(&watcher->sandbox->watchers, watcher, next);
    envd_call_reply(call, json_pack("{s:s}", "watcherId", watcher->id));
}

static bool on_record(void *arg, enum filesystem_record_kind kind, const char *body, size_t bytes)
{
    struct watcher *watcher = arg;

    if (kind == FILESYSTEM_WATCHING && watcher->call != NULL)
        register_watcher(watcher);
    else if (kind == FILESYSTEM_EVENT) /* nonsense is no event */
        json_array_append_new(watcher->events, filesystem_event_json(body, bytes));
    if (json_array_size(watcher->events) >= EVENTS_MAX)
        filesystem_pause(watcher->talk);
    return true;
}

static void on_ended(void *arg, enum rpc_code code, const char *message)
{
    struct watcher *watcher = arg;

    watcher->talk = NULL;
    message = message == NULL ? "watcher event channel closed" : message;
    if (watcher->call != NULL) {
        envd_call_error(watcher->call, code, message);
        watcher_free(watcher);
        return;
    }
    watcher->code = code;
    watcher->message = strdup(message);
}

static const struct filesystem_listener listener = {.record = on_record, .ended = on_ended};

void envd_filesystem_create_watcher(struct request *request)
{
    json_t *message = envd_call_read(request, "CreateWatcher");
    struct watcher *watcher;
    enum rpc_code code;
    const char *text;

    if (message == NULL)
        return;
    watcher = memory_new(sizeof *watcher);
    watcher->sandbox = request->sandbox;
    watcher->events = json_array();
    watcher->talk = watch_begin(request, message, &listener, watcher, &code, &text);
    if (watcher->talk == NULL) {
        reply_rpc_error(request->http, code, "%s", text);
        json_decref(watcher->events);
        free(watcher);
    } else {
        watcher->call = envd_call_new(request, on_closed, watcher);
    }
    json_decref(message);
}

/* The watcher that a message names; NULL after an error was answered. */
static struct watcher *find_watcher(struct request *request, const json_t *message)
{
    const char *id = json_string_value(json_object_get(message, "watcherId"));
    struct watcher *watcher;

    if (id == NULL)
        id = json_string_value(json_object_get(message, "watcher_id"));
    LIST_FOREACH(watcher, &request->sandbox->watchers, next)
    {
        if (id != NULL && strcmp(watcher->id, id) == 0)
            return watcher;
    }
    reply_rpc_error(request->http, RPC_NOT_FOUND, "watcher with id %s not found", id == NULL ? "" : id);
    return NULL;
}

void envd_filesystem_get_watcher_events(struct request *request)
{
    json_t *message = envd_call_read(request, "GetWatcherEvents");
    struct watcher *watcher = message == NULL ? NULL : find_watcher(request, message);

    json_decref(message);
    if (watcher == NULL)
        return;
    if (json_array_size(watcher->events) == 0 && watcher->message != NULL) {
        reply_rpc_error(request->http, watcher->code, "%s", watcher->message);
        return;
    }
    if (json_array_size(watcher->events) == 0) {
        reply_json(request->http, 200, json_object());
    } else {
        reply_json(request->http, 200, json_pack("{s:o}", "events", watcher->events));
        watcher->events = json_array();
    }
    if (watcher->talk != NULL)
        filesystem_resume(watcher->talk);
}

void envd_filesystem_remove_watcher(struct request *request)
{
    json_t *message = envd_call_read(request, "RemoveWatcher");
    struct watcher *watcher = message == NULL ? NULL : find_watcher(request, message);

    json_decref(message);
    if (watcher == NULL)
        return;
    LIST_REMOVE(watcher, next);
    sandbox_watch_remove(&watcher->watch);
    watcher_free(watcher);
    reply_json(request->http, 200, json_object());
}
