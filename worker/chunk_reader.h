/*
 * chunk_reader: the bytes of a body from its chunks (RFC 9112 7.1), as they come. Pure. Nothing is copied.
 */
#ifndef WORKER_CHUNK_READER_H
#define WORKER_CHUNK_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum chunk_state {
    CHUNK_SIZE,      /* in the digits of a size */
    CHUNK_EXTENSION, /* behind them */
    CHUNK_BYTES,
    CHUNK_END,     /* at the end of the line behind the bytes */
    CHUNK_TRAILER, /* behind the last chunk */
    CHUNK_WHOLE,   /* the body is complete */
    CHUNK_BROKEN,  /* these are no chunks */
};

/* Zeroed: at the beginning. */
struct chunk_reader {
    uint64_t left; /* of the chunk; of a size so far */
    uint16_t line; /* bytes of the line that comes in */
    uint8_t digits;
    uint8_t state; /* enum chunk_state */
};

/*
 * Hands on what is of the body, in pieces; false from on_bytes ends it, which changes nothing of the reader. Stops
 * behind the end of the body, and where it is broken. Returns false only when on_bytes did.
 */
bool chunk_reader_feed(struct chunk_reader *reader, const char *bytes, size_t length,
                       bool (*on_bytes)(void *context, const char *bytes, size_t length), void *context);

#endif
