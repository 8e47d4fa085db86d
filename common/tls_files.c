#include "common/tls_files.h"

#include "common/log.h"
#include "common/small_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define FILE_MAX_BYTES (1 << 20)

/* NULL after a log line. */
static char *read_file(const char *setting, const char *path)
{
    const char *reason;
    size_t length;
    char *text = small_file_read(path, FILE_MAX_BYTES, &length, &reason);

    if (text == NULL)
        log_error("setting %s: %s: %s", setting, path, reason);
    return text;
}

/* Without a certificate the other settings would mean nothing: nobody serves plain HTTP by a slip. */
static bool wants_tls(const struct settings *settings, bool *good)
{
    *good = *settings->tls_cert != '\0' || (*settings->tls_key == '\0' && *settings->tls_client_ca == '\0');
    if (!*good)
        log_error("setting %s needs tls_cert", *settings->tls_key != '\0' ? "tls_key" : "tls_client_ca");
    return *settings->tls_cert != '\0';
}

bool tls_files_read(const struct settings *settings, struct tls_files **files)
{
    const char *key = *settings->tls_key != '\0' ? settings->tls_key : settings->tls_cert;
    struct tls_files *read;
    bool good;

    *files = NULL;
    if (!wants_tls(settings, &good))
        return good;
    read = calloc(1, sizeof *read);
    if (read == NULL)
        return false;
    read->certificate = read_file("tls_cert", settings->tls_cert);
    read->key = read_file("tls_key", key);
    if (*settings->tls_client_ca != '\0')
        read->client_ca = read_file("tls_client_ca", settings->tls_client_ca);
    if (read->certificate != NULL && read->key != NULL &&
        (read->client_ca != NULL || *settings->tls_client_ca == '\0') &&
        getrandom(read->ticket_key, sizeof read->ticket_key, 0) == (ssize_t)sizeof read->ticket_key) {
        *files = read;
        return true;
    }
    tls_files_free(read);
    return false;
}

void tls_files_free(struct tls_files *files)
{
    if (files == NULL)
        return;
    if (files->key != NULL)
        explicit_bzero(files->key, strlen(files->key));
    if (files->certificate != NULL) /* it may hold the key as well */
        explicit_bzero(files->certificate, strlen(files->certificate));
    explicit_bzero(files->ticket_key, sizeof files->ticket_key);
    free(files->certificate);
    free(files->key);
    free(files->client_ca);
    free(files);
}
