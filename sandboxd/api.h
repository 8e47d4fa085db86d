/* api: what the files of the control API share. */
#ifndef SANDBOXD_API_H
#define SANDBOXD_API_H

#include "sandboxd/daemon.h"

/* A sandbox as GET /v2/sandboxes shows it; the caller's reference. */
json_t *api_listed(const struct daemon *daemon, const struct sandbox *sandbox) __attribute__((warn_unused_result));

/* What create and connect answer; the caller's reference. */
json_t *api_created(const struct sandbox *sandbox) __attribute__((warn_unused_result));

#endif
