/*
 * request_guard: reads a connection's bytes beside evhttp and stops a request evhttp would take but should not.
 *
 * evhttp 2.1 accepts duplicate Content-Length, `Transfer-Encoding :` and `TE: identity`, and answers some faults with
 * the wrong status or an HTML body (libs.md). The guard sees each byte before evhttp does, knows where head, body and
 * message end, and says which status a bad request gets (http-api.md 2.3). It notes where in the head the method, the
 * target and the fields stand that decide what becomes of the request. Pure: no sockets, bounded memory (its own
 * struct), one byte at a time in the head, whole runs in the body.
 */
#ifndef WORKER_REQUEST_GUARD_H
#define WORKER_REQUEST_GUARD_H

#include "worker/span.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUARD_REQUEST_LINE_MAX_BYTES (8u << 10)  /* without its end */
#define GUARD_HEADERS_MAX_BYTES      (32u << 10) /* all field lines with their ends, and the empty line */
#define GUARD_HEADERS_MAX_COUNT      100

enum guard_verdict {
    GUARD_MORE,      /* fine so far; the message is not complete */
    GUARD_HEAD,      /* the head is complete; what follows it was not looked at. Said once */
    GUARD_COMPLETE,  /* the message is complete, and no byte is left over */
    GUARD_PIPELINED, /* bytes after the end of the message */
    GUARD_BAD,       /* 400 */
    GUARD_TOO_LARGE, /* 413: body over its limit, declared or counted */
    GUARD_LONG_URI,  /* 414 */
    GUARD_HEADERS,   /* 431: header block over 32 KiB or 100 fields */
};

enum guard_state {
    GUARD_IN_METHOD,
    GUARD_IN_TARGET,
    GUARD_IN_VERSION,
    GUARD_AT_LINE_START,
    GUARD_IN_NAME,
    GUARD_IN_VALUE,
    GUARD_IN_BODY,
    GUARD_IN_CHUNK_SIZE,
    GUARD_IN_CHUNK_EXTENSION,
    GUARD_IN_CHUNK,
    GUARD_AT_CHUNK_END,
    GUARD_IN_TRAILERS,
    GUARD_AT_MESSAGE_END,
};

/* Fields of the head that somebody decides by, or logs. */
enum guard_field {
    GUARD_FIELD_HOST,
    GUARD_FIELD_ORIGIN,
    GUARD_FIELD_AUTHORIZATION,
    GUARD_FIELD_TRIGGER_SECRET,
    GUARD_FIELD_EXPECT,
    GUARD_FIELD_USER_AGENT,
    GUARD_FIELD_WANTED_METHOD, /* Access-Control-Request-Method, -Headers, -Private-Network */
    GUARD_FIELD_WANTED_HEADERS,
    GUARD_FIELD_WANTED_PRIVATE_NETWORK,
    GUARD_FIELD_FORWARDED_FOR, /* X-Forwarded-For, -Proto, -Host */
    GUARD_FIELD_FORWARDED_PROTO,
    GUARD_FIELD_FORWARDED_HOST,
    GUARD_FIELDS
};

/* What is asked for: pieces of a complete head, trimmed. Of a repeated field the first counts. */
struct request_head {
    struct span method;
    struct span target;
    struct span fields[GUARD_FIELDS];
};

/* A place in the head. */
struct guard_place {
    unsigned start; /* 0: none, but for the method */
    unsigned length;
};

struct request_guard {
    uint64_t body_limit_bytes;
    enum guard_state state;
    bool head_complete;
    bool chunked;
    bool has_length;
    bool has_transfer_encoding;
    bool has_host;
    bool is_http_1_1;
    bool too_large;    /* the declared body is over its limit */
    bool seen_cr;      /* the byte before was CR: only LF may follow */
    unsigned position; /* in the head, of the byte being looked at; in the end the length of the head */
    size_t nul_length; /* of a %00 in the target, so far */
    struct guard_place method, target, fields[GUARD_FIELDS];
    struct guard_place field_value; /* of the current field, without blanks at its ends */
    unsigned line_bytes;            /* of the request line or the current line */
    unsigned headers_bytes;
    unsigned headers_count;
    uint64_t body_left;  /* of the body or the current chunk */
    uint64_t body_bytes; /* declared, or of all chunks so far */
    unsigned chunk_digits;
    bool trailer_named; /* the colon of the current trailer was seen */
    char name[40];      /* of the current field, lower case; longer ones are cut: none of ours is */
    size_t name_length;
    char value[24];      /* of the current field or the version, trimmed of leading blanks */
    size_t value_length; /* may pass sizeof value: then the value is cut */
};

/* Ready for the first or next request of a connection. */
void request_guard_init(struct request_guard *guard, uint64_t body_limit_bytes);
/*
 * Takes up to length bytes, *taken says how many: less only with GUARD_HEAD. After a verdict that refuses, or
 * GUARD_PIPELINED, the guard is of no more use. What evhttp does not read as it is meant becomes blanks: chunk
 * extensions, which nobody here knows, and tabs before the value of a field, which it would take for a part of it.
 */
enum guard_verdict request_guard_feed(struct request_guard *guard, char *bytes, size_t length, size_t *taken);
/* The pieces of a complete head, whose first byte is at bytes. */
void request_guard_head(const struct request_guard *guard, const char *bytes, struct request_head *head);
/* Has a byte of the request come? */
bool request_guard_started(const struct request_guard *guard);
/* Does a body follow, or has one followed, the complete head? */
bool request_guard_has_body(const struct request_guard *guard);
/* 400, 413, 414, 431 for a verdict that refuses, 0 for the others. */
int guard_status(enum guard_verdict verdict);

#endif
