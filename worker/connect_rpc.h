/*
 * connect_rpc: the Connect protocol as envd speaks it (e2b.md 0.8): envelopes of a JSON server stream, and base64.
 *
 * Pure: bytes in, envelopes out. Envelopes know nothing of chunks or segments: they span and share them.
 */
#ifndef WORKER_CONNECT_RPC_H
#define WORKER_CONNECT_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONNECT_HEADER_BYTES 5
#define CONNECT_FLAG_END     0x02 /* the last envelope: {} or {"error":…} */
#define CONNECT_ENVELOPE_MAX_BYTES                                                                                     \
    (16u << 20) /* ours: refused by its declared length, before anything is allocated                                  \
                 */

enum connect_result {
    CONNECT_OK,
    CONNECT_TOO_LARGE, /* declared length over CONNECT_ENVELOPE_MAX_BYTES */
    CONNECT_BAD_FLAGS, /* compressed, or unknown */
    CONNECT_AFTER_END, /* bytes after the end-of-stream envelope */
    CONNECT_NO_MEMORY,
    CONNECT_STOPPED, /* the callback returned false */
};

struct envelope_reader {
    unsigned char header[CONNECT_HEADER_BYTES];
    size_t header_length;
    char *payload; /* of an envelope that came in pieces */
    size_t payload_length;
    size_t payload_capacity;
    bool ended; /* the end-of-stream envelope was seen */
};

/* One envelope; the payload is valid during the call. Returns false to stop. */
typedef bool (*envelope_callback)(void *context, bool end_of_stream, const char *payload, size_t length);

void envelope_reader_init(struct envelope_reader *reader);
void envelope_reader_release(struct envelope_reader *reader);
/* After anything but CONNECT_OK the reader is of no more use. */
enum connect_result envelope_reader_feed(struct envelope_reader *reader, const char *bytes, size_t length,
                                         envelope_callback on_envelope, void *context)
    __attribute__((warn_unused_result));
/* True if the stream stopped inside an envelope. */
bool envelope_reader_torn(const struct envelope_reader *reader);

/* Writes the header of an envelope with flags 0. */
void envelope_header(unsigned char header[static CONNECT_HEADER_BYTES], uint32_t length);

/* A sentence for the log and the client. */
const char *connect_result_text(enum connect_result result);

/*
 * Decodes standard or url-safe base64, padded or not (protojson accepts all), into out, which has room for
 * length / 4 * 3 + 3 bytes. Returns the decoded length, or -1 when the text is not base64.
 */
long base64_decode(const char *text, size_t length, char *out) __attribute__((warn_unused_result));

#endif
