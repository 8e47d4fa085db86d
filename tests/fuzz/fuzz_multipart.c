/*
 * Uploads as sandboxd reads them: however a body is cut, the same files come of it. The first line of an input is the
 * Content-Type, or else the boundary is B.
 */
#include "sandboxd/multipart.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"

/* What came of a body: each file as its name, a NUL, its bytes, and a byte that no other event writes. */
struct read {
    struct evbuffer *files;
    enum multipart_event last;
    bool in_file;
};

static void take_all(struct multipart *multipart, struct evbuffer *in, struct read *read)
{
    size_t length = 0;

    while ((read->last = multipart_next(multipart, in, &length)) != MULTIPART_MORE) {
        switch (read->last) {
        case MULTIPART_FILE:
            FUZZ_CHECK(!read->in_file);
            read->in_file = true;
            evbuffer_add(read->files, multipart_filename(multipart), strlen(multipart_filename(multipart)) + 1);
            break;
        case MULTIPART_BYTES:
            FUZZ_CHECK(read->in_file && length > 0 && length <= evbuffer_get_length(in));
            evbuffer_remove_buffer(in, read->files, length > 1 ? length - length / 3 : length);
            break;
        case MULTIPART_FILE_END:
            FUZZ_CHECK(read->in_file);
            read->in_file = false;
            evbuffer_add(read->files, "\n", 2);
            break;
        default:
            FUZZ_CHECK(read->last == MULTIPART_END || read->last == MULTIPART_MALFORMED);
            FUZZ_CHECK(read->last != MULTIPART_END || !read->in_file);
            return;
        }
    }
}

static struct read read_body(const char *boundary, const uint8_t *data, size_t size, struct fuzz_pieces *pieces)
{
    struct multipart *multipart = multipart_new(boundary);
    struct evbuffer *in = evbuffer_new();
    struct read read = {.files = evbuffer_new(), .last = MULTIPART_MORE};

    for (size_t at = 0; at < size && read.last == MULTIPART_MORE;) {
        size_t piece = pieces != NULL ? fuzz_next_piece(pieces, size - at) : size - at;

        evbuffer_add(in, data + at, piece);
        take_all(multipart, in, &read);
        at += piece;
    }
    evbuffer_free(in);
    multipart_free(multipart);
    return read;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_pieces pieces = fuzz_pieces_of(data, size);
    const uint8_t *body;
    size_t body_size, first = fuzz_first_line(data, size, &body, &body_size);
    char *line = fuzz_text(data, first), *boundary = multipart_boundary(line);
    struct read whole, cut;

    FUZZ_CHECK(boundary == NULL || (*boundary != '\0' && strlen(boundary) <= 70));
    whole = read_body(boundary != NULL ? boundary : "B", body, body_size, NULL);
    cut = read_body(boundary != NULL ? boundary : "B", body, body_size, &pieces);
    FUZZ_CHECK(whole.last == cut.last && whole.in_file == cut.in_file);
    /* Of a file that is not whole less may have come. */
    if (whole.last == MULTIPART_END || whole.last == MULTIPART_MALFORMED)
        FUZZ_CHECK(fuzz_buffers_equal(whole.files, cut.files));
    evbuffer_free(whole.files);
    evbuffer_free(cut.files);
    free(boundary);
    free(line);
    return 0;
}
