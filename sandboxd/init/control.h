/*
 * control: what sandboxd and the init of a sandbox say to each other.
 *
 * One SOCK_SEQPACKET socketpair per sandbox; one message is one packet: a fixed header in host byte order (both ends
 * run on one machine), a bounded payload, and up to CONTROL_FDS_MAX descriptors. Orders go to init, notices come back.
 * Init trusts sandboxd. sandboxd trusts nothing that comes from a sandbox: control_receive() checks sizes, the caller
 * checks tags, pids and the type of every descriptor.
 */
#ifndef SANDBOXD_INIT_CONTROL_H
#define SANDBOXD_INIT_CONTROL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* PATH_MAX of Linux, its NUL included: paths are the longest payload. */
#define CONTROL_PAYLOAD_MAX_BYTES 4096
#define CONTROL_FDS_MAX           4

enum control_kind {
    /* Orders. */
    CONTROL_LISTEN = 1, /* listen on the payload, a struct sockaddr; tag = listener. Answered only when it fails. */
    CONTROL_HELLO,      /* answered with the same once everything ordered before it is done */
    CONTROL_SPAWN,      /* tag, value = argc, flags = number of envs; fds: strings, stdin, stdout, stderr */
    CONTROL_SIGNAL,     /* value = pid of a spawned process, flags = signal */
    CONTROL_OPEN,       /* tag, flags = enum control_open_mode; payload = absolute path */
    CONTROL_FREEZE,     /* tag, flags = 1: stop every process but init, 0: continue them */
    CONTROL_SPAWN_PTY,  /* as SPAWN on a new terminal; fd: strings; payload = struct winsize */
    CONTROL_FILESYSTEM, /* fd: a conversation of filesystem.h, which a process of its own leads */
    /* Notices. */
    CONTROL_LISTEN_FAILED, /* tag = listener, value = errno */
    CONTROL_SPAWNED,       /* tag, value = pid (one fd: the terminal, if there is one), or -errno with flags = enum
                              control_spawn_stage */
    CONTROL_EXITED,        /* value = pid, flags = wait status */
    CONTROL_OPENED,        /* tag, value = 0 with one fd, or -errno */
    CONTROL_ACCEPTED,      /* tag = listener; one fd: the connection */
    CONTROL_FROZEN,        /* tag: the CONTROL_FREEZE was done */
};

enum control_open_mode {
    CONTROL_OPEN_READ = 1,
    CONTROL_OPEN_WRITE, /* makes the file and its parents, truncates */
};

/* Where a spawn failed. */
enum control_spawn_stage {
    CONTROL_SPAWN_CWD = 1,
    CONTROL_SPAWN_EXEC,
    CONTROL_SPAWN_RESOURCES,
};

struct control_header {
    uint32_t kind;
    uint32_t tag;
    int32_t value;
    uint32_t flags;
};

struct control_message {
    struct control_header header;
    pid_t sender; /* of a received message, when the socket has SO_PASSCRED; else 0 */
    size_t fd_count;
    int fds[CONTROL_FDS_MAX];
    size_t payload_bytes;
    char payload[CONTROL_PAYLOAD_MAX_BYTES + 1]; /* of a received message: NUL-terminated */
};

enum control_result {
    CONTROL_OK,
    CONTROL_AGAIN,     /* nothing there now, or no room now */
    CONTROL_CLOSED,    /* the other end is gone */
    CONTROL_MALFORMED, /* what came breaks the protocol; its descriptors were closed */
    CONTROL_FAILED,    /* errno says why */
};

/* Sends a copy of the message; the descriptors stay the caller's. */
enum control_result control_send(int socket_fd, const struct control_message *message)
    __attribute__((warn_unused_result));

/* Receives one message. On CONTROL_OK the descriptors (close-on-exec) are the caller's. */
enum control_result control_receive(int socket_fd, struct control_message *message) __attribute__((warn_unused_result));

/* Closes the descriptors of a message. */
void control_close_fds(struct control_message *message);

#endif
