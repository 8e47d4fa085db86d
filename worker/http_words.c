/*
 * The words of a request: what http_client.h offers beside sending it.
 */
#include "worker/http_client.h"

#include <stdio.h>
#include <stdlib.h>

char *http_url_host(const char *url)
{
    CURLU *parsed = curl_url();
    char *host = NULL;
    char *port = NULL;
    char *text = NULL;

    if (parsed != NULL && curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(parsed, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
        asprintf(&text, "%s:%s", host, port) < 0)
        text = NULL;
    curl_free(host);
    curl_free(port);
    curl_url_cleanup(parsed);
    return text;
}

bool http_add_header(struct curl_slist **headers, const char *name, const char *value)
{
    struct curl_slist *longer;
    char *line;

    for (const char *c = value; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    }
    if (asprintf(&line, "%s:%s%s", name, *value != '\0' ? " " : "", value) < 0)
        return false;
    longer = curl_slist_append(*headers, line);
    free(line);
    if (longer == NULL)
        return false;
    *headers = longer;
    return true;
}
