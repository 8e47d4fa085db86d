/*
 * multipart: the files of a multipart/form-data body (spec/e2b.md 0.7), as it comes.
 *
 * envd's rules: a part named "file" is a file, others are passed over; its target is the filename verbatim, the full
 * path; a backslash in a quoted value escapes only the separators of RFC 2616; %22 stays %22; filename* is understood.
 */
#ifndef SANDBOXD_MULTIPART_H
#define SANDBOXD_MULTIPART_H

#include <event2/buffer.h>
#include <stddef.h>

struct multipart;

enum multipart_event {
    MULTIPART_MORE,      /* more bytes are needed; when there are none the body is cut */
    MULTIPART_FILE,      /* a file begins: multipart_filename() */
    MULTIPART_BYTES,     /* the first *length bytes of the input are the file's: take some or all off */
    MULTIPART_FILE_END,  /* it had no more */
    MULTIPART_END,       /* the last delimiter was read; what follows does not matter */
    MULTIPART_MALFORMED, /* nothing more can be read */
    MULTIPART_AGAIN,     /* never returned */
};

/* Reads the boundary of a Content-Type into an allocated string; NULL when there is none. */
char *multipart_boundary(const char *content_type) __attribute__((warn_unused_result));

struct multipart *multipart_new(const char *boundary) __attribute__((returns_nonnull, warn_unused_result));
void multipart_free(struct multipart *multipart);

/* Goes on to the next event, taking what it has read off the input, to whose end the caller adds. */
enum multipart_event multipart_next(struct multipart *multipart, struct evbuffer *in, size_t *length)
    __attribute__((warn_unused_result));

/* Of the file that began last; "" when the part has none. */
const char *multipart_filename(const struct multipart *multipart);

#endif
