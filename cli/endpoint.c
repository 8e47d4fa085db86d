#include "cli/http.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_URL "http://localhost:8000"
#define UNIX_PREFIX "unix:"

static const char *from(const char *given, const char *variable)
{
    const char *value = given != NULL ? given : getenv(variable);

    return value != NULL && *value != '\0' ? value : NULL;
}

static bool no_memory(struct endpoint *endpoint)
{
    fprintf(stderr, "%s: %s\n", endpoint->command, strerror(ENOMEM));
    return false;
}

/* A URL without user and password, for messages. NULL when it is none of ours. */
static char *name_of(const char *url)
{
    CURLU *parts = curl_url();
    char *text = NULL, *scheme = NULL, *name = NULL;

    if (parts != NULL && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
        curl_url_set(parts, CURLUPART_USER, NULL, 0) == CURLUE_OK &&
        curl_url_set(parts, CURLUPART_PASSWORD, NULL, 0) == CURLUE_OK &&
        curl_url_set(parts, CURLUPART_QUERY, NULL, 0) == CURLUE_OK &&
        curl_url_set(parts, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK &&
        curl_url_get(parts, CURLUPART_URL, &text, 0) == CURLUE_OK)
        name = strdup(text);
    curl_free(text);
    curl_free(scheme);
    curl_url_cleanup(parts);
    return name;
}

static void cut_slashes(char *url)
{
    size_t length = strlen(url);

    while (length > 0 && url[length - 1] == '/')
        url[--length] = '\0';
}

static bool add_header(struct endpoint *endpoint, const char *header)
{
    struct curl_slist *longer = curl_slist_append(endpoint->headers, header);

    if (longer != NULL)
        endpoint->headers = longer;
    return longer != NULL;
}

/* A key goes into a header: what would end that, or is none, is not sent. */
static bool add_key(struct endpoint *endpoint, const char *key)
{
    char *header = NULL;
    bool added;

    for (const char *c = key; *c != '\0'; c++) {
        if (*c <= ' ' || *c > '~') {
            (void)options_reject(endpoint->command, "the API key holds a blank or a character that no key has");
            return false;
        }
    }
    if (asprintf(&header, "Authorization: Bearer %s", key) < 0)
        return no_memory(endpoint);
    added = add_header(endpoint, header);
    free(header);
    return added || no_memory(endpoint);
}

bool endpoint_open_url(struct endpoint *endpoint, const char *command, const char *url, const char *header)
{
    *endpoint = (struct endpoint){.command = command};
    if (strncmp(url, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0) {
        endpoint->unix_socket = strdup(url + strlen(UNIX_PREFIX));
        endpoint->name = strdup(url);
        endpoint->base = strdup("http://localhost");
        if (endpoint->unix_socket == NULL)
            return no_memory(endpoint);
    } else {
        endpoint->name = name_of(url);
        endpoint->base = strdup(url);
    }
    if (endpoint->name == NULL) {
        (void)options_reject(command, "the server's address is none of http://…, https://… and unix:/path");
        return false;
    }
    if (endpoint->base == NULL || !add_header(endpoint, "Expect:") ||
        !add_header(endpoint, "Content-Type: application/json") || (header != NULL && !add_header(endpoint, header)))
        return no_memory(endpoint);
    cut_slashes(endpoint->base);
    cut_slashes(endpoint->name);
    return true;
}

/* False for lack of memory. */
static bool set_file(char **file, const char *given, const char *variable)
{
    const char *path = from(given, variable);

    if (path != NULL)
        *file = strdup(path);
    return path == NULL || *file != NULL;
}

bool endpoint_open(struct endpoint *endpoint, const char *command, const struct server_options *options)
{
    const char *url = from(options->server, "SANDSTORM_URL");
    const char *key = from(options->api_key, "SANDSTORM_API_KEY");

    if (!endpoint_open_url(endpoint, command, url != NULL ? url : DEFAULT_URL, NULL))
        return false;
    endpoint->is_server = true;
    if (key != NULL && !add_key(endpoint, key))
        return false;
    if (options->api_key != NULL)
        memset(options->api_key, 'x', strlen(options->api_key)); /* ps(1) shows it no longer */
    return (set_file(&endpoint->ca_file, options->ca_file, "SANDSTORM_CA_FILE") &&
            set_file(&endpoint->cert, options->cert, "SANDSTORM_CERT") &&
            set_file(&endpoint->key, options->key, "SANDSTORM_KEY")) ||
           no_memory(endpoint);
}

bool endpoint_set_route(struct endpoint *endpoint, const char *ca_file, const char *proxy)
{
    if (*ca_file != '\0')
        endpoint->ca_file = strdup(ca_file);
    if (*proxy != '\0')
        endpoint->proxy = strdup(proxy);
    return (*ca_file == '\0' || endpoint->ca_file != NULL) && (*proxy == '\0' || endpoint->proxy != NULL);
}

void endpoint_close(struct endpoint *endpoint)
{
    free(endpoint->proxy);
    free(endpoint->name);
    free(endpoint->base);
    free(endpoint->unix_socket);
    free(endpoint->ca_file);
    free(endpoint->cert);
    free(endpoint->key);
    curl_slist_free_all(endpoint->headers);
}
