/* envd_watch: what the two forms of watching a directory share: WatchDir (envd_watch.c), watchers (envd_watcher.c). */
#ifndef SANDBOXD_ENVD_WATCH_H
#define SANDBOXD_ENVD_WATCH_H

#include "sandboxd/daemon.h"
#include "sandboxd/filesystem.h"

/* Open watches of one sandbox, in both forms. */
#define WATCHES_MAX 64

/* Begins to watch what a message asks for, and counts it; NULL when it could not, with code and text. */
struct filesystem_talk *watch_begin(struct request *request, const json_t *message,
                                    const struct filesystem_listener *listener, void *arg, enum rpc_code *code,
                                    const char **text) __attribute__((warn_unused_result));

/* It is over, and no more counted. */
void watch_uncount(struct sandbox *sandbox);

#endif
