/*
 * What libcurl is told of each request before it is sent: how, whom to trust, by which way.
 */
#include "worker/http_client_internal.h"

/* 16 KiB is what one TLS record holds; a larger buffer only adds to the memory of each stream. */
#define READ_BUFFER_BYTES 16384L
/* Of an answer that lasts. A flood costs more reads with it, and a stream 14 KiB less. */
#define LASTING_BUFFER_BYTES 2048L
#define KEEPALIVE_IDLE_S     30L

/* Certificates are always checked: no setting and no variable turns that off. */
static CURLcode set_trust(CURL *easy, const char *ca_file)
{
    CURLcode code = CURLE_OK;

#define SET(option, value) code = code == CURLE_OK ? curl_easy_setopt(easy, option, value) : code
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_PROXY_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_PROXY_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_CAPATH, (char *)NULL);
    SET(CURLOPT_PROXY_CAPATH, (char *)NULL);
    if (*ca_file != '\0') {
        SET(CURLOPT_CAINFO, ca_file);
        SET(CURLOPT_PROXY_CAINFO, ca_file);
    }
#undef SET
    return code;
}

/* Nothing on this machine is reached through a proxy; what the setting says goes before every variable. */
static CURLcode set_route(CURL *easy, const char *unix_socket, const char *proxy)
{
    CURLcode code = CURLE_OK;

    if (unix_socket != NULL)
        code = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, unix_socket);
    if (code == CURLE_OK && (unix_socket != NULL || *proxy != '\0'))
        code = curl_easy_setopt(easy, CURLOPT_PROXY, unix_socket != NULL ? "" : proxy);
    if (code == CURLE_OK && unix_socket == NULL && *proxy != '\0')
        code = curl_easy_setopt(easy, CURLOPT_NOPROXY, "");
    return code;
}

/* The options of libs.md, "libcurl multi"; the reasons stand there. */
bool http_options_set(struct http_transfer *transfer, const struct http_request *request)
{
    CURL *easy = transfer->easy;
    CURLcode code = CURLE_OK;

#define SET(option, value) code = code == CURLE_OK ? curl_easy_setopt(easy, option, value) : code
    SET(CURLOPT_URL, request->url);
    SET(CURLOPT_CUSTOMREQUEST, request->method);
    SET(CURLOPT_HTTPHEADER, transfer->headers);
    SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_PROTOCOLS_STR, "http,https");
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_QUICK_EXIT, 1L);
    SET(CURLOPT_TCP_KEEPALIVE, 1L);
    SET(CURLOPT_TCP_KEEPIDLE, KEEPALIVE_IDLE_S);
    SET(CURLOPT_HTTP_TRANSFER_DECODING, transfer->is_raw ? 0L : 1L);
    SET(CURLOPT_BUFFERSIZE, request->lasts ? LASTING_BUFFER_BYTES : READ_BUFFER_BYTES);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)transfer->client->options.connect_timeout_ms);
    SET(CURLOPT_TIMEOUT_MS, (long)request->total_timeout_ms);
    if (request->stall_timeout_ms > 0) {
        SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
        SET(CURLOPT_LOW_SPEED_TIME, (long)((request->stall_timeout_ms + 999) / 1000));
    }
#undef SET
    if (code == CURLE_OK)
        code = set_trust(easy, transfer->client->options.ca_file);
    if (code == CURLE_OK)
        code = set_route(easy, request->unix_socket, transfer->client->options.proxy);
    return code == CURLE_OK;
}
