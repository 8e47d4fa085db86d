/*
 * What a webhook brings: a body becomes a prompt in which every value stands between its marks and no header that is a
 * secret stands at all, its keys can be put in order, and a signature fits what it was made of and nothing else. An
 * input is a prompt, a header's value and a signature, a line each, and the body.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_buffer.h"
#include "worker/json_sorted.h"
#include "worker/trigger_prompt.h"
#include "worker/utf8.h"
#include "worker/webhook_signature.h"

#include <event2/keyvalq_struct.h>
#include <openssl/evp.h>
#include <sys/queue.h>

#define SECRET "0123456789abcdef"
#define HIDDEN "hidden-from-agents"
#define BEGIN  "<trigger_value path=\""
#define END    "</trigger_value>"

/* Of a prompt without marks: each is one of ours, and they do not stand in each other. */
static void check_marks(const char *text, size_t length)
{
    const char *end = text + length;
    bool is_open = false;

    while (text < end && (text = memchr(text, '<', (size_t)(end - text))) != NULL) {
        const char *mark = is_open ? END : BEGIN;

        FUZZ_CHECK((size_t)(end - text) >= strlen(mark) && memcmp(text, mark, strlen(mark)) == 0);
        is_open = !is_open;
        text++;
    }
    FUZZ_CHECK(!is_open);
}

static void check_prompt(const char *prompt, const char *value, struct json_text body)
{
    json_t *string = json_string(prompt), *rendered;
    struct trigger_sources sources = {.body = body};
    struct evkeyvalq headers;

    TAILQ_INIT(&headers);
    evhttp_add_header(&headers, "X-Value", value);
    evhttp_add_header(&headers, "Cookie", HIDDEN);
    evhttp_add_header(&headers, TRIGGER_SECRET_HEADER, HIDDEN);
    evhttp_add_header(&headers, "AUTHORIZATION", HIDDEN);
    sources.headers = &headers;
    rendered = string != NULL ? trigger_prompt_render(string, &sources) : NULL;
    if (rendered != NULL) {
        const char *text = json_string_value(rendered);
        size_t length = json_string_length(rendered);

        FUZZ_CHECK(utf8_is_valid(text, length));
        if (strpbrk(prompt, "<>") == NULL)
            check_marks(text, length);
        if (strstr(prompt, "hidden") == NULL && strstr(value, "hidden") == NULL &&
            memmem(body.start, body.length, "hidden", 6) == NULL && memmem(body.start, body.length, "\\u", 2) == NULL)
            FUZZ_CHECK(memmem(text, length, HIDDEN, sizeof HIDDEN - 1) == NULL);
    }
    json_decref(rendered);
    json_decref(string);
    evhttp_clear_headers(&headers);
}

/* Sorted it is the same JSON, and sorted again the same text. */
static void check_sorted(struct json_text body)
{
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL;
    struct evbuffer *out = evbuffer_new(), *again = evbuffer_new();
    json_t *before = json_loadb(body.start, body.length, flags, NULL), *after;
    struct json_text_fault fault;
    struct json_text sorted;
    size_t length;

    FUZZ_CHECK(json_sorted_write(body, out));
    length = evbuffer_get_length(out);
    FUZZ_CHECK(json_text_check((const char *)evbuffer_pullup(out, -1), length, &sorted, &fault) == JSON_TEXT_OK);
    FUZZ_CHECK(json_sorted_write(sorted, again) && fuzz_buffers_equal(out, again));
    after = json_loadb((const char *)evbuffer_pullup(out, -1), length, flags, NULL);
    if (before != NULL && after != NULL)
        FUZZ_CHECK(json_equal(before, after));
    json_decref(before);
    json_decref(after);
    evbuffer_free(out);
    evbuffer_free(again);
}

static void check_signature(const char *given, const uint8_t *body, size_t size)
{
    const struct span secret = {SECRET, sizeof SECRET - 1}, whole = {(const char *)body, size};
    unsigned char digest[EVP_MAX_MD_SIZE], text[64];
    char *signed_text = malloc(sizeof SECRET - 1 + size);
    struct span signature = {(const char *)text, 43};

    memcpy(signed_text, SECRET, sizeof SECRET - 1);
    if (size > 0)
        memcpy(signed_text + sizeof SECRET - 1, body, size);
    FUZZ_CHECK(EVP_Digest(signed_text, sizeof SECRET - 1 + size, digest, NULL, EVP_sha256(), NULL) == 1);
    EVP_EncodeBlock(text, digest, 32);
    FUZZ_CHECK(webhook_signature_fits(secret, whole, signature));
    if (size > 0)
        FUZZ_CHECK(!webhook_signature_fits(secret, (struct span){whole.bytes, size - 1}, signature));
    FUZZ_CHECK(!webhook_signature_fits((struct span){SECRET, sizeof SECRET - 2}, whole, signature));
    if (webhook_signature_fits(secret, whole, (struct span){given, strlen(given)}))
        FUZZ_CHECK(strlen(given) >= 43);
    free(signed_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *rest = data;
    char *lines[3];
    struct json_text body;
    struct json_text_fault fault;

    for (size_t i = 0; i < 3; i++) {
        const uint8_t *line = rest;
        size_t length = fuzz_first_line(line, size, &rest, &size);

        lines[i] = fuzz_text(line, length);
    }
    check_signature(lines[2], rest, size);
    if (size > 0 && utf8_is_valid((const char *)rest, size) &&
        json_text_check((const char *)rest, size, &body, &fault) == JSON_TEXT_OK) {
        check_prompt(lines[0], lines[1], body);
        check_sorted(body);
    }
    for (size_t i = 0; i < 3; i++)
        free(lines[i]);
    return 0;
}
