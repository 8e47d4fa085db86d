/* Records that come out of a sandbox, whose processes may write anything: JSON that can be sent, or malformed. */
#include "sandboxd/filesystem_record.h"
#include "tests/fuzz/fuzz.h"
#include "worker/utf8.h"

static void check_json(json_t *json)
{
    char *text;

    if (json == NULL)
        return;
    text = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);
    FUZZ_CHECK(text != NULL && utf8_is_valid(text, strlen(text)));
    free(text);
    json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *body = malloc(size + (size == 0)); /* of its own, so that a byte too far is seen */
    enum rpc_code code;
    const char *text;
    size_t text_bytes;

    if (size > 0)
        memcpy(body, data, size);
    check_json(filesystem_entry_json(body, size));
    check_json(filesystem_event_json(body, size));
    if (filesystem_failure_read(body, size, &code, &text, &text_bytes)) {
        FUZZ_CHECK(text >= body && text + text_bytes <= body + size && *rpc_code_name(code) != '\0');
        check_json(rpc_text(text, text_bytes));
    }
    free(body);
    return 0;
}
