/*
 * multipart: the files of a multipart/form-data body (spec/e2b.md 0.7), found in place.
 *
 * envd's rules: a part named "file" is a file, others are passed over; its target is the filename verbatim, the full
 * path; a backslash in a quoted value escapes only the separators of RFC 2616; %22 stays %22; filename* is understood.
 */
#ifndef SANDBOXD_MULTIPART_H
#define SANDBOXD_MULTIPART_H

#include <stdbool.h>
#include <stddef.h>

struct multipart_file {
    char *filename;    /* "" when the part has none; freed by multipart_free() */
    const char *bytes; /* in the body */
    size_t length;
};

struct multipart {
    size_t count;
    struct multipart_file *files;
};

/* Files of one body. */
#define MULTIPART_FILES_MAX 4096

/* Reads the boundary of a Content-Type into an allocated string; NULL when there is none. */
char *multipart_boundary(const char *content_type) __attribute__((warn_unused_result));

/* Parses a body, which must stay. false when it is malformed; free the result in either case. */
bool multipart_parse(struct multipart *multipart, const char *boundary, const char *body, size_t length)
    __attribute__((warn_unused_result));
void multipart_free(struct multipart *multipart);

#endif
