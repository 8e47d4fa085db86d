/*
 * RPCs to sandboxd: any bytes become a text of UTF-8, a time limit is what it says, and what selects a process selects
 * that one. An input is a time limit, an end of line, a message.
 */
#include "sandboxd/envd_process.h"
#include "sandboxd/rpc.h"
#include "tests/fuzz/fuzz.h"
#include "worker/utf8.h"

static void check_text(const uint8_t *data, size_t size)
{
    json_t *text = rpc_text((const char *)data, size), *again, *error;
    char *cut = fuzz_text(data, size), *dumped;

    FUZZ_CHECK(json_is_string(text) && utf8_is_valid(json_string_value(text), json_string_length(text)));
    again = rpc_text(json_string_value(text), json_string_length(text));
    FUZZ_CHECK(json_equal(text, again));
    if (utf8_is_valid((const char *)data, size) && memchr(data, '\0', size) == NULL)
        FUZZ_CHECK(json_string_length(text) == size && memcmp(json_string_value(text), data, size) == 0);
    error = rpc_error(RPC_INTERNAL, cut);
    dumped = json_dumps(error, JSON_COMPACT);
    FUZZ_CHECK(dumped != NULL);
    free(dumped);
    free(cut);
    json_decref(error);
    json_decref(text);
    json_decref(again);
}

static void check_timeout(const char *text)
{
    uint64_t timeout_ms;

    if (rpc_read_timeout(text, &timeout_ms) == RPC_TIMEOUT_OK)
        FUZZ_CHECK(timeout_ms <= 9999999999u && strtoull(text, NULL, 10) == timeout_ms);
}

static void check_message(const uint8_t *data, size_t size)
{
    json_t *message = json_loadb((const char *)data, size, 0, NULL);
    const json_t *process = json_object_get(message, "process"), *pid = json_object_get(process, "pid");
    char reason[PROCESS_SELECTOR_ERROR_BYTES];
    struct process_selector selector;
    struct process_size window;

    if (process_selector_read(message, &selector)) {
        FUZZ_CHECK(*process_selector_not_found(&selector, reason) != '\0');
        /* Nobody else is meant. */
        if (json_is_integer(pid))
            FUZZ_CHECK(selector.pid == json_integer_value(pid) || selector.pid == -1);
    }
    if (process_size_read(message, &window)) {
        const json_t *cols = json_object_get(json_object_get(message, "size"), "cols");

        FUZZ_CHECK(!json_is_integer(cols) || window.cols == json_integer_value(cols));
    }
    json_decref(message);
}

/* One envelope of a request: it is all there, or malformed. */
static void check_request(const char *body, size_t bytes)
{
    const char *payload;
    size_t length;

    if (rpc_read_request(body, bytes, &payload, &length) == RPC_REQUEST_OK)
        FUZZ_CHECK(payload == body + RPC_ENVELOPE_HEAD_BYTES && length == bytes - RPC_ENVELOPE_HEAD_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *rest;
    size_t rest_size, first = fuzz_first_line(data, size, &rest, &rest_size);
    char *line = fuzz_text(data, first);

    check_text(data, size);
    check_timeout(line);
    check_message(rest, rest_size);
    check_request((const char *)data, size);
    free(line);
    return 0;
}
