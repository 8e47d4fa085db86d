/*
 * preflight: what a start or a reload needs from outside, checked before anything is acted on. Each fault is logged
 * with the setting to change; all are looked at, not only the first.
 */
#ifndef MASTER_PREFLIGHT_H
#define MASTER_PREFLIGHT_H

#include "common/environment.h"
#include "common/project_store.h"
#include "common/settings.h"
#include "master/privileges.h"

#include <stdbool.h>
#include <stdint.h>

/* Files and addresses that the settings name. Binds nothing. */
bool preflight_check(const struct settings *settings) __attribute__((warn_unused_result));

/*
 * The project directory and the files for TLS, checked by a child, since their formats are the workers' business. What
 * is good is in the store then. Waits for the child, 10 s at most.
 */
bool preflight_check_project(const struct settings_load *load, struct project_store *store,
                             const struct privileges *privileges) __attribute__((warn_unused_result));

/* Raises RLIMIT_NOFILE to the hard limit and refuses max_runs that would not fit into one worker. */
bool preflight_raise_descriptors(int64_t max_runs) __attribute__((warn_unused_result));

/*
 * The local runtime is needed when the settings or the project ask for it, or when nothing else is configured (no
 * E2B_API_KEY).
 */
bool preflight_wants_local_runtime(const struct settings *settings, const struct environment *environment,
                                   const struct project_store *store);

#endif
