#include "worker/upstream.h"

#include "common/log.h"
#include "worker/tls.h"

#include <curl/curl.h>
#include <errno.h>
#include <openssl/err.h>
#include <string.h>
#include <unistd.h>

static bool check_ca_file(const char *path)
{
    X509_STORE *store = X509_STORE_new();
    bool good;

    ERR_clear_error();
    good = store != NULL && access(path, R_OK) == 0;
    if (!good) {
        log_error("setting ca_file: %s: %s", path, strerror(errno));
    } else if (X509_STORE_load_file(store, path) != 1) {
        log_error("setting ca_file: %s: no certificates in PEM: %s", path, tls_reason());
        good = false;
    }
    ERR_clear_error();
    X509_STORE_free(store);
    return good;
}

/* The text is not logged: it may hold a password. */
static bool check_proxy(const char *proxy)
{
    CURLU *url = curl_url();
    char *scheme = NULL;
    bool good = url != NULL && curl_url_set(url, CURLUPART_URL, proxy, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

    curl_free(scheme);
    curl_url_cleanup(url);
    if (!good)
        log_error("setting proxy: expected http://host:port or https://host:port");
    return good;
}

bool upstream_check(const char *ca_file, const char *proxy)
{
    bool good = *ca_file == '\0' || check_ca_file(ca_file);

    return (*proxy == '\0' || check_proxy(proxy)) && good;
}
