/*
 * template_install: puts the Agent SDK into a sandbox of the fallback template, as root (http-api.md 6.4).
 */
#ifndef WORKER_TEMPLATE_INSTALL_H
#define WORKER_TEMPLATE_INSTALL_H

#include "worker/e2b.h"

struct template_install;

/*
 * Ends once, with on_installed, always from the loop: RUN_ERROR_NONE, or why not. NULL for lack of memory, without a
 * callback. The sandbox must outlive it.
 */
struct template_install *template_install_start(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                                const char *sdk_version,
                                                void (*on_installed)(void *context, const struct e2b_result *result),
                                                void *context) __attribute__((warn_unused_result));
/* Without a callback. NULL is allowed. */
void template_install_cancel(struct template_install *install);

#endif
