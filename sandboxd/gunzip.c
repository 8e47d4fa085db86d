#include "sandboxd/gunzip.h"

#include "sandboxd/memory.h"

#include "common/log.h"

#include <stdlib.h>
#include <zlib.h>

/* Inflated at once. */
#define PIECE_BYTES 16384
/* zlib: the largest window, and a gzip head is asked for. */
#define GZIP_WINDOW (15 + 16)

struct gunzip {
    z_stream stream;
    bool is_whole; /* at the end of a member */
};

struct gunzip *gunzip_new(void)
{
    struct gunzip *gunzip = memory_new(sizeof *gunzip);

    if (inflateInit2(&gunzip->stream, GZIP_WINDOW) != Z_OK)
        log_panic("out of memory");
    return gunzip;
}

void gunzip_free(struct gunzip *gunzip)
{
    if (gunzip == NULL)
        return;
    inflateEnd(&gunzip->stream);
    free(gunzip);
}

/* Inflates one piece of the input's first chunk. false when it is no gzip. */
static bool inflate_piece(struct gunzip *gunzip, struct evbuffer *in, struct evbuffer *out)
{
    unsigned char piece[PIECE_BYTES];
    struct evbuffer_iovec chunk;
    z_stream *stream = &gunzip->stream;
    int result;

    if (evbuffer_peek(in, 1, NULL, &chunk, 1) < 1)
        return true;
    /* Members may follow one another. */
    if (gunzip->is_whole && inflateReset(stream) != Z_OK)
        return false;
    stream->next_in = chunk.iov_base;
    stream->avail_in = (uInt)chunk.iov_len;
    stream->next_out = piece;
    stream->avail_out = sizeof piece;
    result = inflate(stream, Z_NO_FLUSH);
    evbuffer_add(out, piece, sizeof piece - stream->avail_out);
    evbuffer_drain(in, chunk.iov_len - stream->avail_in);
    gunzip->is_whole = result == Z_STREAM_END;
    return result == Z_OK || result == Z_STREAM_END;
}

bool gunzip_step(struct gunzip *gunzip, struct evbuffer *in, struct evbuffer *out, size_t max)
{
    while (evbuffer_get_length(in) > 0 && evbuffer_get_length(out) < max) {
        if (!inflate_piece(gunzip, in, out))
            return false;
    }
    return true;
}

bool gunzip_is_whole(const struct gunzip *gunzip)
{
    return gunzip->is_whole;
}
