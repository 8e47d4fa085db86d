/*
 * replaced_http: the HTTP client of worker/ replaced by a note of what it was asked to send; the test answers through
 * http.request.on_done.
 */
#ifndef TESTS_UNIT_REPLACED_HTTP_H
#define TESTS_UNIT_REPLACED_HTTP_H

#include "tests/unit/unit.h"
#include "worker/http_client.h"

static struct {
    struct http_request request; /* the last one sent */
    char url[512];
    int sent, cancelled;
} http;

static int http_handle;

struct http_client *http_client_new(struct event_base *base, const struct http_client_options *options)
{
    (void)base;
    (void)options;
    return (struct http_client *)&http_handle;
}

void http_client_free(struct http_client *client)
{
    (void)client;
}

struct http_transfer *http_client_send(struct http_client *client, const struct http_request *request)
{
    (void)client;
    http.request = *request;
    snprintf(http.url, sizeof http.url, "%s", request->url);
    curl_slist_free_all(request->headers);
    http.sent++;
    return (struct http_transfer *)&http_handle;
}

void http_transfer_cancel(struct http_transfer *transfer)
{
    http.cancelled += transfer != NULL;
}

int http_transfer_status(const struct http_transfer *transfer)
{
    (void)transfer;
    return 200;
}

char *http_url_host(const char *url)
{
    return strdup(url);
}

bool http_add_header(struct curl_slist **headers, const char *name, const char *value)
{
    (void)name;
    *headers = curl_slist_append(*headers, value);
    return *headers != NULL;
}

#endif
