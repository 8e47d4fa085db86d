/*
 * Files an agent left: whatever the listing of a sandbox says, each file that is read becomes one event of JSON whose
 * data are the file's bytes, there are no more than promised, and the collection ends once. An input is the listing,
 * two NULs, and what every file holds.
 */
#include "common/base64.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "tests/fuzz/fuzz_http.h"
#include "worker/collection.h"
#include "worker/connect_rpc.h"
#include "worker/file_event.h"
#include "worker/utf8.h"

#define FILES_MAX_COUNT 10
#define FILE_MAX_BYTES  65536

static struct event_base *base;

/* What a run heard. */
struct heard {
    const char *content;
    size_t content_length;
    size_t files;
    int ends;
};

/* --- the client ------------------------------------------------------------------------------------------- */

/* In place of a client: takes the event at once. */
void event_stream_put_source(struct event_stream *stream, const struct event_source *source)
{
    struct evbuffer *out = (struct evbuffer *)stream;
    enum event_source_result result;

    while ((result = source->next(source->state, out)) == EVENT_SOURCE_MORE) {
    }
    FUZZ_CHECK(result == EVENT_SOURCE_END);
    source->free(source->state);
}

static void check_event(struct evbuffer *out, const struct heard *heard)
{
    size_t length = evbuffer_get_length(out), decoded;
    json_t *event = json_loadb((const char *)evbuffer_pullup(out, -1), length, 0, NULL);
    const json_t *data = json_object_get(event, "data"), *name = json_object_get(event, "name");
    char *bytes;

    FUZZ_CHECK(memchr(evbuffer_pullup(out, -1), '\n', length) == NULL && json_is_string(name));
    FUZZ_CHECK(strchr(json_string_value(name), '/') == NULL);
    FUZZ_CHECK(json_integer_value(json_object_get(event, "size")) == (json_int_t)heard->content_length);
    bytes = malloc(json_string_length(data) / 4 * 3 + 3);
    FUZZ_CHECK(base64_decode_lenient(json_string_value(data), json_string_length(data), bytes, &decoded));
    FUZZ_CHECK(decoded == heard->content_length && memcmp(bytes, heard->content, decoded) == 0);
    free(bytes);
    json_decref(event);
}

static void on_file(void *context, const char *path, struct spool *spool)
{
    struct heard *heard = context;
    struct evbuffer *out = evbuffer_new();

    FUZZ_CHECK(heard->ends == 0 && *path != '\0' && spool_length(spool) == heard->content_length);
    file_event_put((struct event_stream *)out, path, spool);
    check_event(out, heard);
    evbuffer_free(out);
    heard->files++;
}

static void on_done(void *context, bool incomplete)
{
    struct heard *heard = context;

    (void)incomplete;
    heard->ends++;
}

/* --- the sandbox ------------------------------------------------------------------------------------------ */

static void add_envelope(struct evbuffer *out, unsigned char flags, const char *payload, size_t length)
{
    unsigned char header[CONNECT_HEADER_BYTES];

    envelope_header(header, (uint32_t)length);
    header[0] = flags;
    evbuffer_add(out, header, sizeof header);
    evbuffer_add(out, payload, length);
}

/* The stream of the process that lists. */
static struct evbuffer *listing_stream(const uint8_t *data, size_t size)
{
    static const char start[] = "{\"event\":{\"start\":{\"pid\":1}}}",
                      end[] = "{\"event\":{\"end\":{\"exited\":true}}}";
    struct evbuffer *stream = evbuffer_new();
    char *payload = malloc(BASE64_ENCODED_BYTES(size) + 64);
    size_t length = (size_t)sprintf(payload, "{\"event\":{\"data\":{\"stdout\":\"");

    base64_encode(data, size, payload + length);
    length += BASE64_ENCODED_BYTES(size);
    length += (size_t)sprintf(payload + length, "\"}}}");
    add_envelope(stream, 0, start, sizeof start - 1);
    add_envelope(stream, 0, payload, length);
    add_envelope(stream, 0, end, sizeof end - 1);
    add_envelope(stream, CONNECT_FLAG_END, "{}", 2);
    free(payload);
    return stream;
}

static void answer(const struct heard *heard)
{
    static const struct http_answer whole = {.status = 200, .retry_after_s = -1, .body = "", .error = ""};
    struct http_request request = fuzz_http.request;

    FUZZ_CHECK(request.on_body != NULL);
    if (heard->content_length > 0)
        request.on_body(request.context, heard->content, heard->content_length);
    request.on_done(request.context, &whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct e2b_service service = {
        .references = 1, .api_url = "", .sandbox_url = "", .domain = "", .api_key = ""};
    static const struct e2b_sandbox sandbox = {.id = "i1", .base_url = "http://s"};
    const struct collection_limits limits = {.file_bytes = FILE_MAX_BYTES, .total_timeout_ms = 60000};
    const uint8_t *gap = size > 0 ? memmem(data, size, "\0\0", 2) : NULL;
    size_t listing = gap != NULL ? (size_t)(gap - data) + 1 : size;
    struct heard heard = {.content = (const char *)data + listing, .content_length = size - listing};
    const struct collection_handlers handlers = {.on_file = on_file, .on_done = on_done, .context = &heard};
    struct input_files *inputs = input_files_new(NULL);
    struct evbuffer *stream = listing_stream(data, listing);
    struct e2b_context e2b = {.service = &service};
    struct collection *collection;

    if (base == NULL)
        base = event_base_new();
    e2b.base = base;
    collection = collection_start(&e2b, &sandbox, &limits, inputs, &handlers);
    FUZZ_CHECK(collection != NULL);
    fuzz_http.request.on_body(fuzz_http.request.context, (const char *)evbuffer_pullup(stream, -1),
                              evbuffer_get_length(stream));
    fuzz_http.sent = 0;
    event_base_loop(base, EVLOOP_NONBLOCK);
    while (heard.ends == 0) {
        unsigned sent = fuzz_http.sent;

        FUZZ_CHECK(sent > 0 && sent <= FILES_MAX_COUNT);
        answer(&heard);
        while (heard.ends == 0 && fuzz_http.sent == sent)
            event_base_loop(base, EVLOOP_NONBLOCK);
    }
    FUZZ_CHECK(heard.ends == 1 && heard.files <= FILES_MAX_COUNT && service.references == 1);
    evbuffer_free(stream);
    input_files_free(inputs);
    return 0;
}
