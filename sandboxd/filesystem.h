/*
 * filesystem: sandboxd's side of a Filesystem call (init/filesystem.h): a conversation with a process in the sandbox.
 *
 * It never blocks, takes what comes in bounded pieces, and ends with ended(); its owner may close it before.
 */
#ifndef SANDBOXD_FILESYSTEM_H
#define SANDBOXD_FILESYSTEM_H

#include "sandboxd/init/filesystem.h"
#include "sandboxd/rpc.h"
#include "sandboxd/sandbox.h"

/* Conversations at once in one sandbox. */
#define FILESYSTEM_TALKS_MAX 128

struct filesystem_talk;

struct filesystem_listener {
    /* An ENTRY, EVENT or WATCHING came. False closes the conversation; ended() is not called then. */
    bool (*record)(void *arg, enum filesystem_record_kind kind, const char *body, size_t bytes);
    /* It is over. message is NULL when it was done, else why not, in UTF-8. */
    void (*ended)(void *arg, enum rpc_code code, const char *message);
};

/* What to do; the paths as the client wrote them. */
struct filesystem_wish {
    enum filesystem_operation operation;
    unsigned flags;
    uint32_t depth;
    const char *path;
    const char *destination; /* of MOVE */
};

/* Begins; NULL when it could not, with code and a static text. Callbacks come from the loop only. */
struct filesystem_talk *filesystem_begin(struct event_base *base, struct sandbox *sandbox,
                                         const struct filesystem_wish *wish, const struct filesystem_listener *listener,
                                         void *arg, enum rpc_code *code, const char **message)
    __attribute__((warn_unused_result));

/* Not from inside its callbacks. NULL is allowed. */
void filesystem_close(struct filesystem_talk *talk);

/* Stops and resumes the taking of records. */
void filesystem_pause(struct filesystem_talk *talk);
void filesystem_resume(struct filesystem_talk *talk);

#endif
