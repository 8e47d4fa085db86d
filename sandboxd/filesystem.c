#include "sandboxd/filesystem.h"

#include "sandboxd/filesystem_record.h"
#include "sandboxd/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Read at once, and kept unread for an owner that paused: more than a record. */
#define READ_BYTES 65536
#define KEPT_BYTES (2 * READ_BYTES)

struct filesystem_talk {
    struct sandbox *sandbox;
    int fd;
    struct event *readable;
    struct evbuffer *in;
    bool paused;
    const struct filesystem_listener *listener;
    void *arg;
};

void filesystem_close(struct filesystem_talk *talk)
{
    if (talk == NULL)
        return;
    talk->sandbox->filesystem_talks--;
    if (talk->readable != NULL)
        event_free(talk->readable);
    if (talk->in != NULL)
        evbuffer_free(talk->in);
    if (talk->fd >= 0)
        close(talk->fd);
    free(talk);
}

/* Ends it. The text comes out of the sandbox: it is cleaned before anybody sees it. */
static void talk_end(struct filesystem_talk *talk, enum rpc_code code, const char *text, size_t bytes)
{
    const struct filesystem_listener *listener = talk->listener;
    json_t *clean = text == NULL ? NULL : rpc_text(text, bytes);
    void *arg = talk->arg;

    filesystem_close(talk);
    listener->ended(arg, code, text == NULL ? NULL : clean == NULL ? "out of memory" : json_string_value(clean));
    json_decref(clean);
}

static void talk_break(struct filesystem_talk *talk)
{
    static const char text[] = "the work inside the sandbox was ended early";

    talk_end(talk, RPC_INTERNAL, text, sizeof text - 1);
}

/* Takes one record; false when the conversation is over. */
static bool take_record(struct filesystem_talk *talk, enum filesystem_record_kind kind, const char *body, size_t bytes)
{
    enum rpc_code code;
    const char *text;
    size_t text_bytes;

    switch (kind) {
    case FILESYSTEM_ENTRY:
    case FILESYSTEM_EVENT:
    case FILESYSTEM_WATCHING:
        if (talk->listener->record(talk->arg, kind, body, bytes))
            return true;
        filesystem_close(talk);
        return false;
    case FILESYSTEM_DONE:
        talk_end(talk, RPC_UNKNOWN, NULL, 0);
        return false;
    case FILESYSTEM_FAILED:
        if (filesystem_failure_read(body, bytes, &code, &text, &text_bytes))
            talk_end(talk, code, text, text_bytes);
        else
            talk_break(talk);
        return false;
    }
    talk_break(talk); /* the sandbox's fault, not ours */
    return false;
}

/* Takes all whole records; false when the conversation is over. */
static bool take_records(struct filesystem_talk *talk)
{
    struct filesystem_record head;

    while (!talk->paused && evbuffer_copyout(talk->in, &head, sizeof head) == (ssize_t)sizeof head) {
        size_t whole = sizeof head + head.bytes;
        const char *record;

        if (head.bytes > FILESYSTEM_RECORD_MAX_BYTES) {
            talk_break(talk);
            return false;
        }
        if (evbuffer_get_length(talk->in) < whole)
            return true;
        record = (const char *)evbuffer_pullup(talk->in, (ev_ssize_t)whole);
        if (!take_record(talk, (enum filesystem_record_kind)head.kind, record + sizeof head, head.bytes))
            return false;
        evbuffer_drain(talk->in, whole);
    }
    return true;
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct filesystem_talk *talk = arg;
    int got = 1;

    (void)what;
    /* What lay there when it was resumed comes first. */
    if (evbuffer_get_length(talk->in) < KEPT_BYTES)
        got = evbuffer_read(talk->in, fd, READ_BYTES);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        got = 1;
    if (take_records(talk) && got <= 0 && !talk->paused)
        talk_break(talk);
}

void filesystem_pause(struct filesystem_talk *talk)
{
    talk->paused = true;
    event_del(talk->readable);
}

void filesystem_resume(struct filesystem_talk *talk)
{
    if (!talk->paused)
        return;
    talk->paused = false;
    event_add(talk->readable, NULL);
    /* Records that were read already come from the loop too. */
    event_active(talk->readable, EV_READ, 1);
}

/* Writes the request; it fits into an empty socket. */
static bool write_request(int fd, const struct filesystem_wish *wish, const char *path, const char *destination)
{
    const struct filesystem_request request = {
        .operation = wish->operation,
        .flags = wish->flags,
        .depth = wish->depth,
        .path_bytes = (uint32_t)strlen(path),
        .destination_bytes = (uint32_t)strlen(destination),
    };
    char bytes[sizeof request + 2 * FILESYSTEM_PATH_MAX_BYTES];
    size_t length = sizeof request + request.path_bytes + request.destination_bytes;

    memcpy(bytes, &request, sizeof request);
    memcpy(bytes + sizeof request, path, request.path_bytes);
    memcpy(bytes + sizeof request + request.path_bytes, destination, request.destination_bytes);
    return send(fd, bytes, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* Opens the conversation and hands the other end over; false with errno. */
static bool talk_open(struct filesystem_talk *talk, struct event_base *base, const struct filesystem_wish *wish,
                      const char *path, const char *destination)
{
    int ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return false;
    talk->fd = ends[0];
    talk->in = evbuffer_new();
    talk->readable = event_new(base, talk->fd, EV_READ | EV_PERSIST, on_readable, talk);
    if (talk->in == NULL || talk->readable == NULL || event_add(talk->readable, NULL) < 0 ||
        fcntl(talk->fd, F_SETFL, O_RDWR | O_NONBLOCK) < 0 || !write_request(talk->fd, wish, path, destination)) {
        close(ends[1]);
        return false;
    }
    sandbox_order_filesystem(talk->sandbox, ends[1]);
    return true;
}

/* A client's path as an absolute one; NULL with the reason. */
static char *resolve(const char *path, const char **message)
{
    char *resolved = process_resolve_path(path);

    *message = resolved == NULL ? "error resolving path: the home of another user is not known" : "path too long";
    if (resolved != NULL && strlen(resolved) < FILESYSTEM_PATH_MAX_BYTES)
        return resolved;
    free(resolved);
    return NULL;
}

/* Begins with resolved paths. */
static struct filesystem_talk *begin(struct event_base *base, struct sandbox *sandbox,
                                     const struct filesystem_wish *wish, const char *path, const char *destination)
{
    struct filesystem_talk *talk = calloc(1, sizeof *talk);

    if (talk == NULL)
        return NULL;
    talk->sandbox = sandbox;
    talk->fd = -1;
    sandbox->filesystem_talks++;
    if (talk_open(talk, base, wish, path, destination))
        return talk;
    filesystem_close(talk);
    return NULL;
}

struct filesystem_talk *filesystem_begin(struct event_base *base, struct sandbox *sandbox,
                                         const struct filesystem_wish *wish, const struct filesystem_listener *listener,
                                         void *arg, enum rpc_code *code, const char **message)
{
    char *path = resolve(wish->path, message);
    char *destination = path == NULL || wish->operation != FILESYSTEM_MOVE ? NULL : resolve(wish->destination, message);
    struct filesystem_talk *talk = NULL;

    *code = RPC_INVALID_ARGUMENT;
    if (path != NULL && (wish->operation != FILESYSTEM_MOVE || destination != NULL)) {
        *code = RPC_RESOURCE_EXHAUSTED;
        *message = "too many filesystem calls at once in this sandbox";
        if (sandbox->filesystem_talks < FILESYSTEM_TALKS_MAX)
            talk = begin(base, sandbox, wish, path, destination == NULL ? "" : destination);
    }
    if (talk != NULL) {
        talk->listener = listener;
        talk->arg = arg;
    }
    free(path);
    free(destination);
    return talk;
}
