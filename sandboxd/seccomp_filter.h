/*
 * seccomp_filter: the system calls that commands of a sandbox must not make.
 *
 * A list of what is refused, not of what is allowed: node, python, git, bash and the agent run unhindered, and what
 * widens the kernel's attack surface or escapes a mount or user namespace is gone.
 */
#ifndef SANDBOXD_SECCOMP_FILTER_H
#define SANDBOXD_SECCOMP_FILTER_H

#include <stdbool.h>
#include <stddef.h>

/* The filter as the bytes that bwrap's --seccomp takes; allocated. false with errno when it cannot be built. */
bool seccomp_filter_export(void **program, size_t *bytes) __attribute__((warn_unused_result));

#endif
