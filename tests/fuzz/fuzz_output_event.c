/* One event of output: what is found without a tree is what jansson finds, and two decoders of base64 agree. */
#include "common/base64.h"
#include "tests/fuzz/fuzz.h"
#include "worker/connect_rpc.h"
#include "worker/output_event.h"

#include <jansson.h>

/* The event as jansson reads it, NULL when it is no event of this shape. */
static const json_t *find(const json_t *root, bool is_stderr)
{
    const json_t *data = json_object_get(json_object_get(root, "event"), "data");
    const json_t *text = json_object_get(data, is_stderr ? "stderr" : "stdout");

    return json_object_size(root) == 1 && json_object_size(data) == 1 && json_is_string(text) ? text : NULL;
}

static void compare_with_jansson(const char *payload, size_t length)
{
    struct output_event event;
    bool is_found = output_event_read(payload, length, &event);
    json_t *root = json_loadb(payload, length, 0, NULL);
    const json_t *text;

    /* What jansson refuses (a text that is no UTF-8, or has control bytes) is refused as base64 too. */
    if (is_found && root == NULL) {
        char *decoded = malloc(event.length / 4 * 3 + 3);

        FUZZ_CHECK(base64_decode(event.text, event.length, decoded) < 0);
        free(decoded);
    } else if (is_found) {
        text = find(root, event.is_stderr);
        FUZZ_CHECK(text != NULL && json_string_length(text) == event.length);
        FUZZ_CHECK(memcmp(json_string_value(text), event.text, event.length) == 0);
    }
    json_decref(root);
}

/* sandboxd writes it, the worker reads it. */
static void check_round_trip(const uint8_t *data, size_t size)
{
    size_t encoded = BASE64_ENCODED_BYTES(size);
    char *payload = malloc(encoded + 64), *decoded = malloc(encoded / 4 * 3 + 3);
    struct output_event event;
    int length = sprintf(payload, "{\"event\":{\"data\":{\"%s\":\"", size % 2 == 0 ? "stdout" : "stderr");

    base64_encode(data, size, payload + length);
    memcpy(payload + length + encoded, "\"}}}", 4);
    FUZZ_CHECK(output_event_read(payload, (size_t)length + encoded + 4, &event));
    FUZZ_CHECK(event.is_stderr == (size % 2 != 0) && event.length == encoded);
    FUZZ_CHECK(base64_decode(event.text, event.length, decoded) == (long)size && memcmp(decoded, data, size) == 0);
    free(payload);
    free(decoded);
}

static void compare_decoders(const char *text, size_t length)
{
    char *ours = malloc(length / 4 * 3 + 3), *theirs = malloc(length / 4 * 3 + 3);
    long decoded = base64_decode(text, length, ours);
    size_t their_length = 0;

    FUZZ_CHECK(decoded <= (long)(length / 4 * 3 + 3));
    if (decoded >= 0) {
        FUZZ_CHECK(base64_decode_lenient(text, length, theirs, &their_length));
        FUZZ_CHECK((size_t)decoded == their_length && memcmp(ours, theirs, their_length) == 0);
    }
    free(ours);
    free(theirs);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    compare_with_jansson((const char *)data, size);
    check_round_trip(data, size);
    compare_decoders((const char *)data, size);
    return 0;
}
