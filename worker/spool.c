#include "worker/spool.h"

#include "worker/byte_space.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct spool {
    size_t length;
    char *memory; /* the first bytes, until there are too many */
    size_t memory_size;
    int fd; /* all of them; -1: they are in memory */
    EVP_MD_CTX *digest;
};

struct spool *spool_new(bool with_digest)
{
    struct spool *spool = calloc(1, sizeof *spool);

    if (spool == NULL)
        return NULL;
    spool->fd = -1;
    if (!with_digest)
        return spool;
    spool->digest = EVP_MD_CTX_new();
    if (spool->digest != NULL && EVP_DigestInit_ex(spool->digest, EVP_sha256(), NULL) == 1)
        return spool;
    spool_free(spool);
    return NULL;
}

void spool_free(struct spool *spool)
{
    if (spool == NULL)
        return;
    if (spool->fd >= 0)
        close(spool->fd);
    EVP_MD_CTX_free(spool->digest);
    free(spool->memory);
    free(spool);
}

/* A file without a name; where the file system knows none, one that loses its name at once. */
static int open_unnamed(const char *directory)
{
    char path[PATH_MAX];
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL))
        return fd;
    if ((size_t)snprintf(path, sizeof path, "%s/sandstorm-XXXXXX", directory) >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int open_temporary(void)
{
    const char *chosen = getenv("TMPDIR");
    int fd;

    if (chosen != NULL && *chosen != '\0')
        return open_unnamed(chosen);
    fd = open_unnamed("/var/tmp");
    return fd >= 0 ? fd : open_unnamed("/tmp");
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);

        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

/* What memory held goes to a file of its own. */
static bool move_to_file(struct spool *spool)
{
    spool->fd = open_temporary();
    if (spool->fd < 0 || !write_all(spool->fd, spool->memory, spool->length))
        return false;
    free(spool->memory);
    spool->memory = NULL;
    return true;
}

static bool add_to_memory(struct spool *spool, const char *bytes, size_t length)
{
    if (!byte_space_reserve(&spool->memory, &spool->memory_size, spool->length + length)) {
        errno = ENOMEM;
        return false;
    }
    memcpy(spool->memory + spool->length, bytes, length);
    return true;
}

bool spool_add(struct spool *spool, const char *bytes, size_t length)
{
    if (length == 0)
        return true;
    if (spool->digest != NULL && EVP_DigestUpdate(spool->digest, bytes, length) != 1) {
        errno = ENOMEM;
        return false;
    }
    if (spool->fd < 0 && spool->length + length > SPOOL_MEMORY_BYTES && !move_to_file(spool))
        return false;
    if (spool->fd >= 0 ? !write_all(spool->fd, bytes, length) : !add_to_memory(spool, bytes, length))
        return false;
    spool->length += length;
    return true;
}

size_t spool_length(const struct spool *spool)
{
    return spool->length;
}

bool spool_read(const struct spool *spool, size_t offset, char *out, size_t length)
{
    if (offset > spool->length || length > spool->length - offset) {
        errno = EINVAL;
        return false;
    }
    if (spool->fd < 0 && length > 0)
        memcpy(out, spool->memory + offset, length);
    if (spool->fd < 0)
        return true;
    while (length > 0) {
        ssize_t got = pread(spool->fd, out, length, (off_t)offset);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got == 0 ? EIO : errno;
            return false;
        }
        out += got;
        offset += (size_t)got;
        length -= (size_t)got;
    }
    return true;
}

bool spool_digest(struct spool *spool, unsigned char digest[static SPOOL_DIGEST_BYTES])
{
    return spool->digest != NULL && EVP_DigestFinal_ex(spool->digest, digest, NULL) == 1;
}
