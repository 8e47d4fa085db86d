/* envd_watch: WatchDir, a directory's events as a stream (spec/e2b.md 0.10). */
#include "sandboxd/envd_watch.h"

#include "sandboxd/envd_stream.h"
#include "sandboxd/filesystem_record.h"
#include "sandboxd/memory.h"

#include <stdlib.h>
#include <string.h>

/* One stream of events. */
struct watch_stream {
    struct sandbox *sandbox;
    struct envd_stream *stream;
    struct filesystem_talk *talk; /* NULL once it is over */
};

/* --- both forms ----------------------------------------------------------------------------------- */

/* A flag of a message, by either of its names. */
static unsigned flag(const json_t *message, const char *name, const char *other_name, unsigned value)
{
    return json_is_true(json_object_get(message, name)) || json_is_true(json_object_get(message, other_name)) ? value
                                                                                                              : 0;
}

struct filesystem_talk *watch_begin(struct request *request, const json_t *message,
                                    const struct filesystem_listener *listener, void *arg, enum rpc_code *code,
                                    const char **text)
{
    const struct filesystem_wish wish = {
        .operation = FILESYSTEM_WATCH,
        .path = json_string_value(json_object_get(message, "path")),
        .flags = flag(message, "recursive", "recursive", FILESYSTEM_RECURSIVE) |
                 flag(message, "includeEntry", "include_entry", FILESYSTEM_INCLUDE_ENTRY) |
                 flag(message, "allowNetworkMounts", "allow_network_mounts", FILESYSTEM_NETWORK_MOUNTS),
    };
    struct filesystem_talk *talk;

    if (request->sandbox->watches == WATCHES_MAX) {
        *code = RPC_RESOURCE_EXHAUSTED;
        *text = "too many watches in this sandbox (limit: 64): end a WatchDir or remove a watcher first";
        return NULL;
    }
    talk = filesystem_begin(request->daemon->base, request->sandbox, &wish, listener, arg, code, text);
    if (talk != NULL)
        request->sandbox->watches++;
    return talk;
}

void watch_uncount(struct sandbox *sandbox)
{
    sandbox->watches--;
}

/* --- WatchDir ------------------------------------------------------------------------------------- */

static void watch_free(struct watch_stream *watch)
{
    watch_uncount(watch->sandbox);
    free(watch);
}

static void on_closed(void *arg)
{
    struct watch_stream *watch = arg;

    filesystem_close(watch->talk);
    watch_free(watch);
}

static void on_drained(void *arg)
{
    struct watch_stream *watch = arg;

    filesystem_resume(watch->talk);
}

static const struct envd_stream_owner owner = {
    .keepalive = "{\"keepalive\":{}}", .closed = on_closed, .drained = on_drained};

/* Ends the stream, while the conversation is closed by whoever calls. */
static void watch_end(struct watch_stream *watch, enum rpc_code code, const char *message)
{
    envd_stream_end(watch->stream, rpc_error(code, message));
    watch_free(watch);
}

/* Sends a message; a client that does not keep up pauses the watch. */
static void send_message(struct watch_stream *watch, const char *message)
{
    if (!envd_stream_send(watch->stream, message, strlen(message)))
        filesystem_pause(watch->talk);
}

static bool on_record(void *arg, enum filesystem_record_kind kind, const char *body, size_t bytes)
{
    struct watch_stream *watch = arg;
    json_t *event = kind == FILESYSTEM_EVENT ? filesystem_event_json(body, bytes) : NULL;
    json_t *message = event == NULL ? NULL : json_pack("{s:o}", "filesystem", event);
    char *text = message == NULL ? NULL : json_dumps(message, JSON_COMPACT);

    if (kind == FILESYSTEM_WATCHING)
        send_message(watch, "{\"start\":{}}");
    else if (text != NULL)
        send_message(watch, text);
    else
        watch_end(watch, RPC_INTERNAL, "the work inside the sandbox answered nonsense");
    json_decref(message);
    free(text);
    return kind == FILESYSTEM_WATCHING || text != NULL;
}

static void on_ended(void *arg, enum rpc_code code, const char *message)
{
    watch_end(arg, code, message == NULL ? "watcher event channel closed" : message);
}

static const struct filesystem_listener listener = {.record = on_record, .ended = on_ended};

void envd_filesystem_watch_dir(struct request *request)
{
    struct envd_stream_call call;
    struct watch_stream *watch;
    enum rpc_code code;
    const char *message;

    if (!envd_stream_read(request, "WatchDir", &call))
        return;
    watch = memory_new(sizeof *watch);
    watch->sandbox = request->sandbox;
    watch->talk = watch_begin(request, call.message, &listener, watch, &code, &message);
    watch->stream = envd_stream_new(request, &call, &owner, watch);
    if (watch->talk == NULL) {
        envd_stream_end(watch->stream, rpc_error(code, message));
        free(watch);
    }
    json_decref(call.message);
}
