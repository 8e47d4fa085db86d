/* The body of a request to sandboxd: however its chunks are cut, it has the same bytes and the same end. */
#include "sandboxd/body_framing.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"

struct taken {
    enum body_state state;
    struct evbuffer *body, *rest;
};

static struct taken take(const uint8_t *data, size_t size, const uint64_t *length, struct fuzz_pieces *pieces)
{
    struct taken taken = {.body = evbuffer_new(), .rest = evbuffer_new()};
    struct body_framing framing;

    body_framing_begin(&framing, length == NULL, length != NULL ? *length : 0);
    for (size_t at = 0; at < size;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        evbuffer_add(taken.rest, data + at, piece);
        body_framing_take(&framing, taken.rest, taken.body);
        at += piece;
    }
    taken.state = framing.state;
    return taken;
}

static void release(struct taken *taken)
{
    evbuffer_free(taken->body);
    evbuffer_free(taken->rest);
}

static void check(const uint8_t *data, size_t size, const uint64_t *length)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct taken whole = take(data, size, length, NULL), cut = take(data, size, length, &pieces);

    FUZZ_CHECK(whole.state == cut.state);
    FUZZ_CHECK(fuzz_buffers_equal(whole.body, cut.body));
    if (whole.state == BODY_WHOLE)
        FUZZ_CHECK(fuzz_buffers_equal(whole.rest, cut.rest));
    if (length != NULL) {
        size_t wanted = *length < size ? (size_t)*length : size;

        FUZZ_CHECK((whole.state == BODY_WHOLE) == (size >= *length) && evbuffer_get_length(whole.body) == wanted);
    }
    release(&whole);
    release(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t length = size > 0 ? data[0] : 0;

    check(data, size, NULL);
    check(data, size, &length);
    return 0;
}
