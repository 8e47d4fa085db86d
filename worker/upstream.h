/*
 * upstream: the settings that say how the sandbox service is reached, looked at before a worker relies on them.
 */
#ifndef WORKER_UPSTREAM_H
#define WORKER_UPSTREAM_H

#include <stdbool.h>

/* False after log lines that name the setting. "" is good for both. */
bool upstream_check(const char *ca_file, const char *proxy) __attribute__((warn_unused_result));

#endif
