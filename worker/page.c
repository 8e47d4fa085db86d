#include "worker/page.h"

#include "common/log.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define SHA256_BYTES  32
#define BASE64_BUFFER 48

struct page {
    const char *bytes;
    size_t length;
    char *policy;
};

/* The base64 SHA-256 of what stands between two tags; false for lack of memory. */
static bool digest(const char *bytes, size_t length, const char *open, const char *close,
                   char out[static BASE64_BUFFER])
{
    const char *start = memmem(bytes, length, open, strlen(open));
    const char *end;
    unsigned char sum[SHA256_BYTES];

    if (start == NULL)
        log_panic("page: no %s", open);
    start += strlen(open);
    end = memmem(start, length - (size_t)(start - bytes), close, strlen(close));
    if (end == NULL)
        log_panic("page: no %s", close);
    if (EVP_Digest(start, (size_t)(end - start), sum, NULL, EVP_sha256(), NULL) != 1)
        return false;
    EVP_EncodeBlock((unsigned char *)out, sum, sizeof sum);
    return true;
}

struct page *page_new(const char *bytes, size_t length)
{
    struct page *page = calloc(1, sizeof *page);
    char script[BASE64_BUFFER], style[BASE64_BUFFER];

    if (page == NULL)
        return NULL;
    page->bytes = bytes;
    page->length = length;
    if (!digest(bytes, length, "<script>", "</script>", script) ||
        !digest(bytes, length, "<style>", "</style>", style) ||
        asprintf(
            &page->policy,
            "default-src 'none'; script-src 'sha256-%s'; style-src 'sha256-%s'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            script, style) < 0) {
        free(page);
        return NULL;
    }
    return page;
}

void page_free(struct page *page)
{
    if (page == NULL)
        return;
    free(page->policy);
    free(page);
}

void page_reply(const struct page *page, struct exchange *exchange)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(exchange->request);

    evhttp_add_header(headers, "Content-Security-Policy", page->policy);
    evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    evhttp_add_header(headers, "Referrer-Policy", "no-referrer");
    evhttp_add_header(headers, "Cache-Control", "no-cache");
    server_reply_static(exchange, "text/html; charset=utf-8", page->bytes, page->length);
}
