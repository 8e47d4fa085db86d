/* envd_process: what the RPCs of Process share (spec/e2b.md 0.9). */
#ifndef SANDBOXD_ENVD_PROCESS_H
#define SANDBOXD_ENVD_PROCESS_H

#include "sandboxd/process.h"
#include "sandboxd/rpc.h"

#include <jansson.h>

/* {"pid":N} or {"tag":"t"}. */
struct process_selector {
    pid_t pid;
    const char *tag; /* or NULL; borrowed from the message */
};

#define PROCESS_SELECTOR_ERROR_BYTES 512

/* Reads the selector of a message, its "process". False when it has none. */
bool process_selector_read(const json_t *message, struct process_selector *selector)
    __attribute__((warn_unused_result));

/* Says that nobody has this pid or tag. Returns out. */
const char *process_selector_not_found(const struct process_selector *selector,
                                       char out[static PROCESS_SELECTOR_ERROR_BYTES]);

/* "size":{"cols":…,"rows":…} of a pty; false when it is malformed. */
bool process_size_read(const json_t *pty, struct process_size *size) __attribute__((warn_unused_result));

#endif
