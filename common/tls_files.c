#include "common/tls_files.h"

#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1 << 20)

/* The whole of an open file; NULL with errno. */
static char *read_all(int fd)
{
    struct stat status;
    size_t used = 0;
    char *text;
    ssize_t n;

    if (fstat(fd, &status) < 0)
        return NULL;
    if (!S_ISREG(status.st_mode) || status.st_size > FILE_MAX_BYTES) {
        errno = S_ISREG(status.st_mode) ? EFBIG : EINVAL;
        return NULL;
    }
    text = calloc(1, (size_t)status.st_size + 1);
    while (text != NULL && used < (size_t)status.st_size) {
        n = read(fd, text + used, (size_t)status.st_size - used);
        if (n == 0 || (n < 0 && errno != EINTR))
            break;
        used += n > 0 ? (size_t)n : 0;
    }
    return text;
}

/* NULL after a log line. Never waits for a pipe to open. */
static char *read_file(const char *setting, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = fd >= 0 ? read_all(fd) : NULL;

    if (text == NULL)
        log_error("setting %s: %s: %s", setting, path, strerror(errno));
    if (fd >= 0)
        close(fd);
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
