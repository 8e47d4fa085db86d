/* What a sandbox sends to the proxy: any bytes give a target that can be named, a head that is one, and a body's end.
 */
#include "sandboxd/proxy_request.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void check_target(const struct endpoint *target)
{
    char text[ENDPOINT_TEXT_MAX_BYTES];
    struct endpoint again;

    FUZZ_CHECK(target->host[0] != '\0' && target->port != 0);
    endpoint_text(target, text);
    FUZZ_CHECK(endpoint_parse(text, strlen(text), &again));
    FUZZ_CHECK(endpoint_find(&(struct endpoint_list){.count = 1, .entries = {again}}, target) != NULL);
}

/* The origin gets one head, which asks for nothing but what we read. */
static void check_origin_head(const struct proxy_request *request, const char *head)
{
    struct evbuffer *out = evbuffer_new();
    const char *bytes;
    size_t length;

    FUZZ_CHECK(proxy_request_rewrite(request, head, out));
    length = evbuffer_get_length(out);
    bytes = (const char *)evbuffer_pullup(out, -1);
    FUZZ_CHECK(memmem(bytes, length, "\r\n\r\n", 4) == bytes + length - 4);
    FUZZ_CHECK(memmem(bytes, length, "\r\nConnection: close\r\n", 21) != NULL);
    evbuffer_free(out);
}

/* However the bytes come, the same ones belong to the body. */
static void check_body(const struct proxy_request *request, const char *bytes, size_t length)
{
    struct proxy_body whole = request->body, pieces = request->body;
    size_t taken = proxy_body_take(&whole, bytes, length), in_pieces = 0, last = 1;

    FUZZ_CHECK(taken <= length);
    while (in_pieces < length && last > 0) {
        last = proxy_body_take(&pieces, bytes + in_pieces, 1);
        in_pieces += last;
    }
    FUZZ_CHECK(in_pieces == taken && pieces.state == whole.state);
    FUZZ_CHECK(taken == length || whole.state == PROXY_BODY_ENDED || whole.state == PROXY_BODY_BAD);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data;
    struct proxy_request request;

    for (int is_greeted = 0; is_greeted < 2; is_greeted++) {
        switch (proxy_request_parse(bytes, size, is_greeted, &request)) {
        case PROXY_HEAD_OK:
            FUZZ_CHECK(request.head_bytes > 0 && request.head_bytes <= size);
            check_target(&request.target);
            if (request.form == PROXY_FORWARD) {
                check_origin_head(&request, bytes);
                check_body(&request, bytes + request.head_bytes, size - request.head_bytes);
            }
            break;
        case PROXY_HEAD_GREETING:
            FUZZ_CHECK(!is_greeted && request.head_bytes <= size);
            break;
        case PROXY_HEAD_INCOMPLETE:
        case PROXY_HEAD_BAD:
        case PROXY_HEAD_GREETING_BAD:
            break;
        }
    }
    return 0;
}
