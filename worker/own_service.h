/* own_service: the sandbox service with the server's own key, for what no request asks for. */
#ifndef WORKER_OWN_SERVICE_H
#define WORKER_OWN_SERVICE_H

#include "worker/e2b.h"
#include "worker/project_dir.h"

/*
 * With the key that counts for the project now, where the environment of the start or reload says the service is. The
 * caller's; NULL when there is no key, and for lack of memory.
 */
struct e2b_service *own_cloud_service(struct project_dir *project_dir, const struct environment *environment)
    __attribute__((warn_unused_result));

#endif
