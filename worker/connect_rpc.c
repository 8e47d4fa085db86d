#include "worker/connect_rpc.h"

#include "common/log.h"
#include "worker/byte_space.h"

#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

/* Larger payload buffers are given back after use. */
#define KEEP_CAPACITY_BYTES 65536

void envelope_reader_init(struct envelope_reader *reader)
{
    *reader = (struct envelope_reader){0};
}

void envelope_reader_release(struct envelope_reader *reader)
{
    free(reader->payload);
    reader->payload = NULL;
    reader->payload_length = reader->payload_capacity = 0;
}

static size_t declared_length(const unsigned char *header)
{
    return (size_t)header[1] << 24 | (size_t)header[2] << 16 | (size_t)header[3] << 8 | header[4];
}

static enum connect_result check_header(const struct envelope_reader *reader)
{
    if (reader->ended)
        return CONNECT_AFTER_END;
    if ((reader->header[0] & ~CONNECT_FLAG_END) != 0)
        return CONNECT_BAD_FLAGS;
    return declared_length(reader->header) > CONNECT_ENVELOPE_MAX_BYTES ? CONNECT_TOO_LARGE : CONNECT_OK;
}

/* The buffer grows with what has come, never to what a header merely claims. */
static bool keep(struct envelope_reader *reader, const char *bytes, size_t length)
{
    size_t wanted = reader->payload_length + length;

    if (!byte_space_reserve(&reader->payload, &reader->payload_capacity, wanted))
        return false;
    if (length > 0)
        memcpy(reader->payload + reader->payload_length, bytes, length);
    reader->payload_length = wanted;
    return true;
}

static enum connect_result deliver(struct envelope_reader *reader, const char *payload, size_t length,
                                   envelope_callback on_envelope, void *context)
{
    bool more;

    reader->ended = (reader->header[0] & CONNECT_FLAG_END) != 0;
    reader->header_length = 0;
    more = on_envelope(context, reader->ended, payload, length);
    reader->payload_length = 0;
    if (reader->payload_capacity > KEEP_CAPACITY_BYTES)
        envelope_reader_release(reader);
    return more ? CONNECT_OK : CONNECT_STOPPED;
}

enum connect_result envelope_reader_feed(struct envelope_reader *reader, const char *bytes, size_t length,
                                         envelope_callback on_envelope, void *context)
{
    enum connect_result result;

    while (length > 0) {
        size_t wanted, taken;

        if (reader->header_length < CONNECT_HEADER_BYTES) {
            reader->header[reader->header_length++] = (unsigned char)*bytes++;
            length--;
            if (reader->header_length < CONNECT_HEADER_BYTES)
                continue;
            if ((result = check_header(reader)) != CONNECT_OK)
                return result;
        }
        wanted = declared_length(reader->header) - reader->payload_length;
        taken = wanted < length ? wanted : length;
        if (reader->payload_length == 0 && taken == wanted) {
            result = deliver(reader, bytes, wanted, on_envelope, context); /* whole: no copy */
        } else if (!keep(reader, bytes, taken)) {
            result = CONNECT_NO_MEMORY;
        } else {
            result = taken < wanted ? CONNECT_OK
                                    : deliver(reader, reader->payload, reader->payload_length, on_envelope, context);
        }
        if (result != CONNECT_OK)
            return result;
        bytes += taken;
        length -= taken;
    }
    return CONNECT_OK;
}

bool envelope_reader_torn(const struct envelope_reader *reader)
{
    return reader->header_length > 0;
}

void envelope_header(unsigned char header[static CONNECT_HEADER_BYTES], uint32_t length)
{
    header[0] = 0;
    header[1] = (unsigned char)(length >> 24);
    header[2] = (unsigned char)(length >> 16);
    header[3] = (unsigned char)(length >> 8);
    header[4] = (unsigned char)length;
}

const char *connect_result_text(enum connect_result result)
{
    switch (result) {
    case CONNECT_OK:
        return "no error";
    case CONNECT_TOO_LARGE:
        return "an envelope of the sandbox's stream is larger than 16 MiB";
    case CONNECT_BAD_FLAGS:
        return "an envelope of the sandbox's stream has unknown flags";
    case CONNECT_AFTER_END:
        return "the sandbox's stream goes on after its end";
    case CONNECT_NO_MEMORY:
        return "out of memory";
    case CONNECT_STOPPED:
        return "stopped";
    default:
        log_panic("connect_rpc: result %d", (int)result);
    }
}

/* Standard alphabet from url-safe, in place of a decoder of our own; out is scratch of the same length. */
static void to_standard_alphabet(const char *text, size_t length, char *out)
{
    for (size_t i = 0; i < length; i++)
        out[i] = text[i] == '-' ? '+' : text[i] == '_' ? '/' : text[i];
}

/*
 * EVP_DecodeBlock wants whole groups of four, trims white space, and takes = for zeros wherever it stands: all of it is
 * checked before it is asked.
 */
static long decode_standard(const char *text, size_t length, char *out)
{
    size_t padding = 0;
    int decoded;

    if (length == 0)
        return 0;
    if (length % 4 != 0 || length > INT_MAX || memchr(text, '\n', length) != NULL || text[0] == ' ' || text[0] == '\t')
        return -1;
    while (padding < 2 && text[length - 1 - padding] == '=')
        padding++;
    if (memchr(text, '=', length - padding) != NULL)
        return -1;
    decoded = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)text, (int)length);
    return decoded == (int)(length / 4 * 3) ? decoded - (long)padding : -1;
}

long base64_decode(const char *text, size_t length, char *out)
{
    size_t padded = (length + 3) / 4 * 4;
    long decoded = decode_standard(text, length, out);
    char *standard;

    if (decoded >= 0 || length % 4 == 1)
        return decoded;
    standard = malloc(padded);
    if (standard == NULL)
        return -1;
    to_standard_alphabet(text, length, standard);
    memset(standard + length, '=', padded - length);
    decoded = decode_standard(standard, padded, out);
    free(standard);
    return decoded;
}
