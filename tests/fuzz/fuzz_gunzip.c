/* Bodies with Content-Encoding: gzip: cut anywhere they inflate to the same, and what zlib packed comes back. */
#include "sandboxd/gunzip.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"

#include <zlib.h>

#define STEP_MAX_BYTES  65536
#define PIECE_BYTES     16384
#define TOTAL_MAX_BYTES (1u << 20)

struct inflated {
    bool is_good, is_whole;
    struct evbuffer *bytes;
};

static struct inflated inflate_all(const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    struct gunzip *gunzip = gunzip_new();
    struct evbuffer *in = evbuffer_new(), *step = evbuffer_new();
    struct inflated inflated = {.is_good = true, .bytes = evbuffer_new()};

    for (size_t at = 0; at < size && inflated.is_good;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        evbuffer_add(in, data + at, piece);
        at += piece;
        while (inflated.is_good && evbuffer_get_length(in) > 0 &&
               evbuffer_get_length(inflated.bytes) < TOTAL_MAX_BYTES) {
            inflated.is_good = gunzip_step(gunzip, in, step, STEP_MAX_BYTES);
            FUZZ_CHECK(evbuffer_get_length(step) < STEP_MAX_BYTES + PIECE_BYTES);
            evbuffer_add_buffer(inflated.bytes, step);
        }
    }
    inflated.is_whole = gunzip_is_whole(gunzip);
    gunzip_free(gunzip);
    evbuffer_free(in);
    evbuffer_free(step);
    return inflated;
}

/* Two members, one after the other. */
static void check_round_trip(const uint8_t *data, size_t size)
{
    uLong bound = compressBound((uLong)size) + 64;
    Bytef *packed = malloc(2 * bound);
    z_stream stream = {
        .next_in = (Bytef *)(uintptr_t)data, .avail_in = (uInt)size, .next_out = packed, .avail_out = (uInt)bound};
    struct evbuffer *twice = evbuffer_new();
    struct inflated inflated;
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);

    FUZZ_CHECK(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    FUZZ_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
    memcpy(packed + stream.total_out, packed, stream.total_out);
    inflated = inflate_all(packed, 2 * stream.total_out, &pieces);
    FUZZ_CHECK(inflated.is_good && inflated.is_whole && evbuffer_get_length(inflated.bytes) == 2 * size);
    evbuffer_add(twice, data, size);
    evbuffer_add(twice, data, size);
    FUZZ_CHECK(fuzz_buffers_equal(inflated.bytes, twice));
    evbuffer_free(twice);
    evbuffer_free(inflated.bytes);
    deflateEnd(&stream);
    free(packed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    struct inflated whole = inflate_all(data, size, NULL), cut = inflate_all(data, size, &pieces);

    /* Where the end is missing zlib may hold back what it has read. */
    FUZZ_CHECK((whole.is_good && whole.is_whole) == (cut.is_good && cut.is_whole));
    if (whole.is_good && whole.is_whole && evbuffer_get_length(whole.bytes) < TOTAL_MAX_BYTES) /* else not followed */
        FUZZ_CHECK(fuzz_buffers_equal(whole.bytes, cut.bytes));
    evbuffer_free(whole.bytes);
    evbuffer_free(cut.bytes);
    check_round_trip(data, size);
    return 0;
}
