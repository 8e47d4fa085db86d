/*
 * fuzz_http: the HTTP client of worker/ replaced by a note of what it was asked to send; a target answers through
 * fuzz_http.request.
 */
#ifndef TESTS_FUZZ_FUZZ_HTTP_H
#define TESTS_FUZZ_FUZZ_HTTP_H

#include "tests/fuzz/fuzz.h"
#include "worker/http_client.h"

static struct {
    struct http_request request; /* the last one sent; its texts are gone */
    unsigned sent;
    const char *next_token; /* the header X-Next-Token of the answer; NULL: none */
} fuzz_http;

static int fuzz_http_handle;

struct http_transfer *http_client_send(struct http_client *client, const struct http_request *request)
{
    (void)client;
    FUZZ_CHECK(request->url != NULL && *request->url != '\0');
    fuzz_http.request = *request;
    fuzz_http.sent++;
    curl_slist_free_all(request->headers);
    return (struct http_transfer *)&fuzz_http_handle;
}

void http_transfer_cancel(struct http_transfer *transfer)
{
    (void)transfer;
}

void http_transfer_pause(struct http_transfer *transfer)
{
    (void)transfer;
}

void http_transfer_resume(struct http_transfer *transfer)
{
    (void)transfer;
}

int http_transfer_status(const struct http_transfer *transfer)
{
    (void)transfer;
    return 200;
}

const char *http_transfer_content_type(const struct http_transfer *transfer)
{
    (void)transfer;
    return "application/connect+json";
}

const char *http_answer_header(const struct http_answer *answer, const char *name)
{
    (void)answer;
    return strcmp(name, "X-Next-Token") == 0 ? fuzz_http.next_token : NULL;
}

char *http_url_host(const char *url)
{
    return strdup(url);
}

/* As the real one: a value with a control byte makes no header. */
bool http_add_header(struct curl_slist **headers, const char *name, const char *value)
{
    (void)name;
    for (const char *c = value; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    }
    *headers = curl_slist_append(*headers, value);
    return *headers != NULL;
}

#endif
