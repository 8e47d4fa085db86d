/*
 * filesystem: the conversation of one Filesystem call, between sandboxd and a process of init's that works inside.
 *
 * One stream socketpair per call: sandboxd writes a filesystem_request and its strings, hands the other end to init
 * (CONTROL_FILESYSTEM), and reads records until one of DONE and FAILED, or the end. A watch goes on until either side
 * closes. Host byte order: both ends run on one machine. The work is done as the sandbox's user, in its namespaces: no
 * path and no link leads out of them. sandboxd trusts nothing it reads here: see filesystem_record.c.
 */
#ifndef SANDBOXD_INIT_FILESYSTEM_H
#define SANDBOXD_INIT_FILESYSTEM_H

#include <stdint.h>

enum filesystem_operation {
    FILESYSTEM_STAT = 1,
    FILESYSTEM_LIST,
    FILESYSTEM_MAKE_DIR,
    FILESYSTEM_MOVE,
    FILESYSTEM_REMOVE,
    FILESYSTEM_WATCH,
};

enum filesystem_flags {
    FILESYSTEM_RECURSIVE = 1,      /* watch what is below too */
    FILESYSTEM_INCLUDE_ENTRY = 2,  /* an event brings what it is about */
    FILESYSTEM_NETWORK_MOUNTS = 4, /* watch them too */
};

/* Absolute paths follow, without NULs. */
struct filesystem_request {
    uint32_t operation;
    uint32_t flags;
    uint32_t depth;
    uint32_t path_bytes;
    uint32_t destination_bytes; /* of MOVE */
};

/* A path, the NUL included. */
#define FILESYSTEM_PATH_MAX_BYTES 4096
/* The body of a record: a few paths and the metadata of a file. */
#define FILESYSTEM_RECORD_MAX_BYTES 65536

enum filesystem_record_kind {
    FILESYSTEM_ENTRY = 1, /* filesystem_entry */
    FILESYSTEM_EVENT,     /* filesystem_event */
    FILESYSTEM_WATCHING,  /* nothing: events are seen from here on */
    FILESYSTEM_DONE,      /* nothing */
    FILESYSTEM_FAILED,    /* uint32_t enum filesystem_error, and the text without a NUL */
};

struct filesystem_record {
    uint32_t kind;
    uint32_t bytes; /* of the body that follows */
};

/* Strings follow, each with its NUL: path, owner, group, target if it is a link; keys and values of the
 * metadata up to the end of the body. */
struct filesystem_entry {
    int64_t size;
    int64_t modified_s;
    uint32_t modified_ns;
    uint32_t mode;        /* st_mode of lstat(2) */
    uint32_t target_mode; /* st_mode of stat(2): of what a link leads to; 0 when that is nothing */
    uint32_t reserved;
};

enum filesystem_event_type {
    FILESYSTEM_CREATE = 1,
    FILESYSTEM_WRITE,
    FILESYSTEM_REMOVED,
    FILESYSTEM_RENAME,
    FILESYSTEM_CHMOD,
};

/* The name follows, with its NUL, relative to what is watched; then an entry as in its own record, if there is one. */
struct filesystem_event {
    uint32_t type;
    uint32_t has_entry;
};

enum filesystem_error {
    FILESYSTEM_NOT_FOUND = 1,
    FILESYSTEM_INVALID,
    FILESYSTEM_EXISTS,
    FILESYSTEM_PRECONDITION,
    FILESYSTEM_DENIED,
    FILESYSTEM_EXHAUSTED,
    FILESYSTEM_INTERNAL,
};

#endif
