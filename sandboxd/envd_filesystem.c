/* envd_filesystem: the unary calls of Filesystem: Stat, ListDir, MakeDir, Move, Remove (spec/e2b.md 0.10). */
#include "sandboxd/daemon.h"
#include "sandboxd/envd_call.h"
#include "sandboxd/filesystem.h"
#include "sandboxd/filesystem_record.h"
#include "sandboxd/memory.h"
#include "sandboxd/reply.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

/* JSON of one answer. */
#define ANSWER_MAX_BYTES ((size_t)16 * 1024 * 1024)

/* One call on its way. */
struct filesystem_call {
    struct envd_call *call;
    struct filesystem_talk *talk;
    enum filesystem_operation operation;
    unsigned entries;
    struct evbuffer *answer;
};

static void call_free(struct filesystem_call *call)
{
    evbuffer_free(call->answer);
    free(call);
}

static void on_closed(void *arg)
{
    struct filesystem_call *call = arg;

    filesystem_close(call->talk);
    call_free(call);
}

/* Adds an entry to the answer: the only one, or the next of a list. */
static bool add_entry(struct filesystem_call *call, const json_t *entry)
{
    char *text = entry == NULL ? NULL : json_dumps(entry, JSON_COMPACT);
    bool added = text != NULL;

    if (added && call->entries++ == 0)
        evbuffer_add_printf(call->answer, call->operation == FILESYSTEM_LIST ? "{\"entries\":[" : "{\"entry\":");
    else if (added)
        evbuffer_add(call->answer, ",", 1);
    if (added)
        evbuffer_add(call->answer, text, strlen(text));
    free(text);
    return added;
}

/* A call ends with an error that we found. */
static bool refuse(struct filesystem_call *call, enum rpc_code code, const char *message)
{
    envd_call_error(call->call, code, message);
    call_free(call);
    return false;
}

static bool on_record(void *arg, enum filesystem_record_kind kind, const char *body, size_t bytes)
{
    struct filesystem_call *call = arg;
    json_t *entry = kind == FILESYSTEM_ENTRY ? filesystem_entry_json(body, bytes) : NULL;
    bool added = (call->entries == 0 || call->operation == FILESYSTEM_LIST) && add_entry(call, entry);

    json_decref(entry);
    if (!added)
        return refuse(call, RPC_INTERNAL, "the work inside the sandbox answered nonsense");
    if (evbuffer_get_length(call->answer) > ANSWER_MAX_BYTES)
        return refuse(call, RPC_RESOURCE_EXHAUSTED,
                      "the listing is larger than 16 MiB: list fewer levels, or the directories below one by one");
    return true;
}

static void on_ended(void *arg, enum rpc_code code, const char *message)
{
    struct filesystem_call *call = arg;

    if (message != NULL) {
        envd_call_error(call->call, code, message);
    } else {
        if (call->entries > 0)
            evbuffer_add_printf(call->answer, call->operation == FILESYSTEM_LIST ? "]}" : "}");
        else
            evbuffer_add(call->answer, "{}", 2);
        envd_call_reply_text(call->call, call->answer);
    }
    call_free(call);
}

static const struct filesystem_listener listener = {.record = on_record, .ended = on_ended};

/* Begins the work. */
static void run(struct request *request, const struct filesystem_wish *wish)
{
    struct filesystem_call *call = memory_new(sizeof *call);
    enum rpc_code code;
    const char *message;

    call->operation = wish->operation;
    call->answer = evbuffer_new();
    if (call->answer == NULL)
        log_panic("out of memory");
    call->talk = filesystem_begin(request->daemon->base, request->sandbox, wish, &listener, call, &code, &message);
    if (call->talk == NULL) {
        reply_rpc_error(request->http, code, "%s", message);
        call_free(call);
        return;
    }
    call->call = envd_call_new(request, on_closed, call);
}

/* Runs a call that takes a path; what is for the text of errors. */
static void run_with_path(struct request *request, const char *what, enum filesystem_operation operation)
{
    json_t *message = envd_call_read(request, what);
    const json_t *path = json_object_get(message, "path");
    const json_t *depth = json_object_get(message, "depth");
    const struct filesystem_wish wish = {
        .operation = operation, .path = json_string_value(path), .depth = (uint32_t)json_integer_value(depth)};

    if (message == NULL)
        return;
    if ((path != NULL && !json_is_string(path)) ||
        (depth != NULL &&
         (!json_is_integer(depth) || json_integer_value(depth) < 0 || json_integer_value(depth) > UINT32_MAX)))
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "malformed %s request", what);
    else
        run(request, &wish);
    json_decref(message);
}

void envd_filesystem_stat(struct request *request)
{
    run_with_path(request, "Stat", FILESYSTEM_STAT);
}

void envd_filesystem_list_dir(struct request *request)
{
    run_with_path(request, "ListDir", FILESYSTEM_LIST);
}

void envd_filesystem_make_dir(struct request *request)
{
    run_with_path(request, "MakeDir", FILESYSTEM_MAKE_DIR);
}

void envd_filesystem_remove(struct request *request)
{
    run_with_path(request, "Remove", FILESYSTEM_REMOVE);
}

void envd_filesystem_move(struct request *request)
{
    json_t *message = envd_call_read(request, "Move");
    const struct filesystem_wish wish = {.operation = FILESYSTEM_MOVE,
                                         .path = json_string_value(json_object_get(message, "source")),
                                         .destination = json_string_value(json_object_get(message, "destination"))};

    if (message == NULL)
        return;
    if (wish.path == NULL || wish.destination == NULL)
        reply_rpc_error(request->http, RPC_INVALID_ARGUMENT, "malformed Move request");
    else
        run(request, &wish);
    json_decref(message);
}
