/*
 * collection: the files an agent left behind, found and read after it has ended (http-api.md 6.10).
 *
 * One listing, then one file at a time, each into a spool: neither its size nor a slow client costs memory, and the
 * sandbox is needed only as long as it takes to read. Whatever fails leaves files out and never fails the run.
 */
#ifndef WORKER_COLLECTION_H
#define WORKER_COLLECTION_H

#include "worker/e2b.h"
#include "worker/input_files.h"

struct collection;

struct collection_handlers {
    /* A whole file, the callee's; path is relative to the home and may hold any byte but NUL. */
    void (*on_file)(void *context, const char *path, struct spool *spool);
    /* Once, last. incomplete: a file was left out because of count, total size or a failed read. */
    void (*on_done)(void *context, bool incomplete);
    void *context;
};

struct collection_limits {
    int64_t file_bytes;
    int64_t total_timeout_ms; /* of the listing and all reads together */
};

/* What was given to the run is not given back unchanged. NULL for lack of memory, without a callback. The sandbox and
 * the inputs must outlive it. */
struct collection *collection_start(const struct e2b_context *e2b, const struct e2b_sandbox *sandbox,
                                    const struct collection_limits *limits, const struct input_files *inputs,
                                    const struct collection_handlers *handlers) __attribute__((warn_unused_result));
/* Without callbacks. NULL is allowed. */
void collection_cancel(struct collection *collection);

#endif
