/*
 * spool: the bytes of one file between the sandbox it is read from and the client it goes to.
 *
 * The first SPOOL_MEMORY_BYTES stay in memory; what is larger goes to an unlinked temporary file ($TMPDIR, else
 * /var/tmp, else /tmp), so that a file costs a worker no more memory than that, whatever its size and however slow the
 * client.
 */
#ifndef WORKER_SPOOL_H
#define WORKER_SPOOL_H

#include <stdbool.h>
#include <stddef.h>

#define SPOOL_MEMORY_BYTES 32768
#define SPOOL_DIGEST_BYTES 32

struct spool;

/* NULL for lack of memory. with_digest: a SHA-256 of what is added is kept, for spool_digest(). */
struct spool *spool_new(bool with_digest) __attribute__((warn_unused_result));
void spool_free(struct spool *spool);

/* False with errno when there is no room, in memory or on the disk: the spool is then of no more use. */
bool spool_add(struct spool *spool, const char *bytes, size_t length) __attribute__((warn_unused_result));
size_t spool_length(const struct spool *spool);

/* False with errno when there are no such bytes, or the file cannot be read. */
bool spool_read(const struct spool *spool, size_t offset, char *out, size_t length) __attribute__((warn_unused_result));

/* After the last byte was added. False: it was not asked for, or could not be made. */
bool spool_digest(struct spool *spool, unsigned char digest[static SPOOL_DIGEST_BYTES])
    __attribute__((warn_unused_result));

#endif
