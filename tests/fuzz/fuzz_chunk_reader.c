/*
 * The body of an answer that has left libcurl: however its chunks are cut, it has the same bytes and the same end; and
 * where sandboxd's reader of chunks finds a whole body too, it is the same.
 */
#include "sandboxd/body_framing.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "worker/chunk_reader.h"

static bool add(void *context, const char *bytes, size_t length)
{
    FUZZ_CHECK(length > 0);
    evbuffer_add(context, bytes, length);
    return true;
}

static struct evbuffer *read_in(const uint8_t *data, size_t size, struct fuzz_pieces *pieces,
                                struct chunk_reader *reader)
{
    struct evbuffer *body = evbuffer_new();

    *reader = (struct chunk_reader){0};
    for (size_t at = 0; at < size;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        FUZZ_CHECK(chunk_reader_feed(reader, (const char *)data + at, piece, add, body));
        at += piece;
    }
    return body;
}

/* A LF alone ends a line for us, as for libcurl, and is part of one for sandboxd. */
static bool has_lone_lf(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (data[i] == '\n' && (i == 0 || data[i - 1] != '\r'))
            return true;
    }
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct chunk_reader whole, cut;
    struct evbuffer *body = read_in(data, size, NULL, &whole), *other = read_in(data, size, &pieces, &cut);
    struct evbuffer *raw = evbuffer_new(), *framed = evbuffer_new();
    struct body_framing framing;

    FUZZ_CHECK(whole.state == cut.state && whole.left == cut.left);
    FUZZ_CHECK(fuzz_buffers_equal(body, other));
    FUZZ_CHECK(evbuffer_get_length(body) <= size);
    evbuffer_add(raw, data, size);
    body_framing_begin(&framing, true, 0);
    body_framing_take(&framing, raw, framed);
    if (framing.state == BODY_WHOLE && whole.state == CHUNK_WHOLE && !has_lone_lf(data, size))
        FUZZ_CHECK(fuzz_buffers_equal(body, framed));
    evbuffer_free(body);
    evbuffer_free(other);
    evbuffer_free(raw);
    evbuffer_free(framed);
    return 0;
}
