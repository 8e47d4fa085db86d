/*
 * jail: starts one bubblewrap per sandbox, with our init in it.
 *
 * What a sandbox gets: its own user, mount, pid, ipc, uts, cgroup and network namespaces; /usr read-only; everything
 * it can write is a sized tmpfs in its own mount namespace, so that nothing of it ever touches a disk of the host; no
 * capabilities; a seccomp filter; limits, by a cgroup where we may make one; an empty environment. bwrap is never run
 * as host uid 0: as root, every sandbox gets a host uid of its own from a range; an ordinary user's sandboxes run under
 * that user.
 */
#ifndef SANDBOXD_JAIL_H
#define SANDBOXD_JAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Most sandboxes at once: the size of the uid range. */
#define JAIL_SLOTS_MAX 4096

/* Longest reason in an error. */
#define JAIL_ERROR_MAX_BYTES 512

/* Paths and names inside a sandbox. */
#define JAIL_HOME "/home/user"
#define JAIL_USER "user"

struct jail_limits {
    unsigned memory_mib; /* of all processes of a sandbox; without cgroups the data of each; 0: no limit */
    unsigned disk_mib;   /* size of the home */
    unsigned processes;
    unsigned cpu_percent; /* of one core, for all processes; needs cgroups; 0: no limit */
};

/* What all sandboxes share. */
struct jail;

/* A started bwrap. The descriptors are the caller's. */
struct jail_process {
    pid_t pid;      /* the outer bwrap: reaped only after every process of the sandbox is gone */
    int control_fd; /* our end of init's control socket, non-blocking, with SO_PASSCRED */
    int stderr_fd;  /* what bwrap has to say until init runs; non-blocking */
    unsigned slot;  /* to be given back with jail_release() once pid is reaped */
};

/* Checks what can be checked without starting a sandbox, and logs what limits sandboxes here. NULL with the reason in
 * error. */
struct jail *jail_new(const char *init_path, const struct jail_limits *limits, char error[static JAIL_ERROR_MAX_BYTES])
    __attribute__((warn_unused_result));
void jail_free(struct jail *jail);

/* Starts a sandbox; template_folder is a folder of the host (template.h) or NULL. false with the reason in error. */
bool jail_start(struct jail *jail, const char *template_folder, struct jail_process *process,
                char error[static JAIL_ERROR_MAX_BYTES]) __attribute__((warn_unused_result));
void jail_release(struct jail *jail, unsigned slot);

/* To be called every JAIL_BALANCE_MS: shares the CPU between sandboxes. */
#define JAIL_BALANCE_MS 500
void jail_balance(struct jail *jail);

/* Makes a pipe's end belong to the sandbox's user, so that a command can open /dev/stdout; as root only. */
void jail_give(const struct jail *jail, unsigned slot, int fd);

/* Why bwrap may have failed on this machine and what to change, or NULL when nothing is known to be wrong. */
const char *jail_advice(void);

#endif
