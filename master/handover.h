/*
 * handover: what a master tells the program that takes its place by exec (USR2): which descriptors are what, and who
 * its children are. Text in a memfd whose number is in the environment: one "key value..." a line, first the version,
 * last "end". The descriptors stay open over the exec under their numbers.
 *
 * The same text is given to the new program's --check, which refuses what it would not be able to take over.
 */
#ifndef MASTER_HANDOVER_H
#define MASTER_HANDOVER_H

#include "common/scoreboard.h"
#include "common/settings.h"
#include "master/listen.h"
#include "master/runtime.h"
#include "master/workers.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define HANDOVER_VARIABLE "SANDSTORM_HANDOVER_FD"
/* How --check ends when it read a handover and would take it over: a program that knows nothing of it does not. */
#define HANDOVER_EXIT_GOOD 42

/* Descriptors are -1 when there is none. */
struct handover {
    unsigned generations;
    unsigned generation; /* the number of the current one */
    bool has_auth;       /* clients need a key */
    int scoreboard_fd;
    int lock_fd; /* of the state directory */
    int pid_file_fd;
    struct listeners listeners;
    char instance[SCOREBOARD_INSTANCE_MAX_BYTES + 1];
    pid_t compactor; /* 0: none */
    uint64_t settled_lines;
    bool has_runtime;
    struct runtime_handover runtime;
    size_t worker_count;
    struct worker workers[SCOREBOARD_SLOTS_MAX];
    char *fixed; /* "key=value" lines: settings that only a restart changes; owned */
};

/* Empty: no descriptors, no children. NULL without memory. */
struct handover *handover_new(void) __attribute__((warn_unused_result));
void handover_free(struct handover *handover);

/* The text as a memfd (close-on-exec), -1 with errno. */
int handover_write(const struct handover *handover) __attribute__((warn_unused_result));
/* NULL after a log line: it is of another version, or broken. Does not touch the descriptors it names. */
struct handover *handover_read(int fd) __attribute__((warn_unused_result));

/* Lets the descriptors it names stay open over an exec, or not. */
void handover_keep(const struct handover *handover, bool keep);

/* The descriptor that the environment names, taken out of it; -1: there is none, this is a start of its own. */
int handover_offered(void);

/* Could a server with these settings take it over? Else the reasons are in the log. */
bool handover_check(const struct handover *handover, const struct settings_load *load)
    __attribute__((warn_unused_result));

#endif
