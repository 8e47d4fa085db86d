/* body_framing: where the body of an HTTP/1.1 request ends, by its length or its chunks, without a socket. */
#ifndef SANDBOXD_BODY_FRAMING_H
#define SANDBOXD_BODY_FRAMING_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <stdint.h>

enum body_state {
    BODY_SIZE,     /* at the line with the size of a chunk */
    BODY_BYTES,    /* in a chunk, or in a body with a length */
    BODY_LINE_END, /* at the end of the line behind a chunk */
    BODY_TRAILER,  /* behind the last chunk */
    BODY_WHOLE,    /* nothing more comes */
    BODY_MALFORMED,
};

struct body_framing {
    enum body_state state;
    bool is_chunked;
    uint64_t left; /* of the chunk or the body */
    unsigned trailer_lines;
};

/* A body in chunks, or of so many bytes. */
void body_framing_begin(struct body_framing *framing, bool is_chunked, uint64_t length);

/*
 * Moves bytes of the body from raw to body, or throws them away when body is NULL; stops behind the end of the body,
 * when raw has no more to give, or when it is malformed.
 */
void body_framing_take(struct body_framing *framing, struct evbuffer *raw, struct evbuffer *body);

#endif
