/*
 * The body of POST /query. Beside memory errors it looks for disagreement with jansson about what JSON is, and for an
 * agent_config.json that is not JSON.
 */
#include "tests/fuzz/fuzz.h"
#include "worker/agent_options.h"
#include "worker/json_text.h"
#include "worker/utf8.h"

#include <string.h>

/* Jansson has limits of its own: the size of numbers, and NUL in keys. A raw NUL ends its reading without an error. */
static bool is_limit_of_jansson(const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);

    return code == json_error_numeric_overflow || code == json_error_null_byte_in_key;
}

static void compare_with_jansson(const char *text, size_t length)
{
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    struct json_text root;
    struct json_text_fault fault;
    json_error_t error;
    enum json_text_result result;
    json_t *loaded;

    if (length == 0 || !utf8_is_valid(text, length) || memchr(text, '\0', length) != NULL)
        return;
    result = json_text_check(text, length, &root, &fault);
    loaded = json_loadb(text, length, flags, &error);
    if (result == JSON_TEXT_OK)
        FUZZ_CHECK(loaded != NULL || is_limit_of_jansson(&error));
    else if (result == JSON_TEXT_INVALID)
        FUZZ_CHECK(loaded == NULL && fault.offset <= length);
    json_decref(loaded);
}

static void write_options(const struct query_request *request)
{
    struct project *project = project_empty();
    const struct agent_options options = {.request = request, .project = project, .timeout_s = 300};
    struct evbuffer *out = evbuffer_new();
    size_t length;
    struct json_text root;
    struct json_text_fault fault;
    char *error;

    FUZZ_CHECK(agent_options_write(&options, out, &error));
    length = evbuffer_get_length(out);
    FUZZ_CHECK(json_text_check((const char *)evbuffer_pullup(out, -1), length, &root, &fault) == JSON_TEXT_OK);
    evbuffer_free(out);
    project_unref(project);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct query_request request;
    json_t *errors;
    enum query_result result = query_request_parse((const char *)data, size, &request, &errors);

    FUZZ_CHECK((result == QUERY_BAD_FIELDS) == (errors != NULL && json_array_size(errors) > 0));
    if (result == QUERY_OK)
        write_options(&request);
    json_decref(errors);
    query_request_release(&request);
    compare_with_jansson((const char *)data, size);
    return 0;
}
