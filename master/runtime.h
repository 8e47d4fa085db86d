/*
 * runtime: the local runtime, sandboxd, as a supervised child.
 *
 * sandboxd inherits the listening socket (LISTEN_FDS=1, descriptor 3), a pipe on which it says that it accepts
 * (--ready-fd: one newline), and the read end of a pipe whose write end the master and every worker hold (--owner-fd:
 * end of file means that all of them are gone, so that it can go too). It has its own session: a Ctrl-C at the terminal
 * is for the master, and sandboxd outlives the workers.
 *
 * Once it was ready it is restarted whenever it dies, throttled. Before that, its death or its silence is a failure.
 */
#ifndef MASTER_RUNTIME_H
#define MASTER_RUNTIME_H

#include "common/settings.h"
#include "master/privileges.h"
#include "master/runtime_socket.h"
#include "master/supervise.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum runtime_state {
    RUNTIME_STARTING, /* first start, not ready */
    RUNTIME_SERVING,  /* was ready once: running, or about to be restarted */
    RUNTIME_STOPPING, /* sent SIGTERM */
    RUNTIME_FAILED,   /* did not get ready; the reason is in the log */
    RUNTIME_GONE,     /* ended as told */
};

struct runtime;

/* All of it, for a master that takes over the same process (handover.h). */
struct runtime_handover {
    enum runtime_state state;
    pid_t pid; /* 0: does not run */
    struct throttle throttle;
    int64_t started_ms;
    int64_t deadline_ms; /* of the start or the stop; -1: none */
    int ready_fd;        /* -1: it has said ready, or does not run */
    int owner_pipe[2];   /* read end for sandboxd, write end for us and the workers */
    struct runtime_socket socket;
};

#define RUNTIME_HANDOVER_NONE ((struct runtime_handover){.ready_fd = -1, .owner_pipe = {-1, -1}, .socket = {.fd = -1}})

/* Opens the socket, which workers of these privileges may use, and starts sandboxd. NULL after a log line. The settings
 * must live as long, or be replaced. */
struct runtime *runtime_new(const struct settings *settings, const struct privileges *privileges)
    __attribute__((warn_unused_result));
/* Closes and removes the socket. The child must be gone (or be about to see the end of file on its owner pipe). */
void runtime_free(struct runtime *runtime);

/* The descriptors stay the runtime's. */
void runtime_describe(const struct runtime *runtime, struct runtime_handover *handover);
/* Takes the descriptors and the child over. NULL without memory. */
struct runtime *runtime_adopt(const struct settings *settings, const struct runtime_handover *handover)
    __attribute__((warn_unused_result));

enum runtime_state runtime_state(const struct runtime *runtime);
const char *runtime_socket_path(const struct runtime *runtime);
/* The write end of the owner pipe: to be kept open by every worker. */
int runtime_owner_fd(const struct runtime *runtime);

/* The pipe on which sandboxd says ready, for poll; -1: nothing to wait for. runtime_readable() when it is readable. */
int runtime_ready_fd(const struct runtime *runtime);
void runtime_readable(struct runtime *runtime);

/* A child was reaped. False: it was not sandboxd. */
bool runtime_reaped(struct runtime *runtime, pid_t pid, int status, int64_t now_ms);
/* Does what is due: a restart, a kill. */
void runtime_tick(struct runtime *runtime, int64_t now_ms);
/* When something is due; -1: never. */
int64_t runtime_deadline_ms(const struct runtime *runtime);

/* The settings of a reload, before those given first are freed. They hold from the next start on. */
void runtime_use_settings(struct runtime *runtime, const struct settings *settings);

/* Asks sandboxd to end: SIGTERM now, SIGKILL later. RUNTIME_GONE follows, at once when it is not running. */
void runtime_stop(struct runtime *runtime, int64_t now_ms);

#endif
