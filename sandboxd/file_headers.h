/* file_headers: the headers of a download (spec/e2b.md 0.7), without a socket. */
#ifndef SANDBOXD_FILE_HEADERS_H
#define SANDBOXD_FILE_HEADERS_H

#include <stdbool.h>
#include <sys/types.h>
#include <time.h>

/* inline; filename=…, of a path's last part; allocated. Never NULL. */
char *file_disposition(const char *path) __attribute__((returns_nonnull, warn_unused_result));

#define FILE_DATE_MAX_BYTES 40

/* As HTTP writes times. Returns out. */
const char *file_date(time_t time, char out[static FILE_DATE_MAX_BYTES]);

enum file_range_result {
    FILE_RANGE_WHOLE,         /* no range, or one that HTTP lets us pass over: several, another unit */
    FILE_RANGE_PART,          /* *start and *length are set */
    FILE_RANGE_UNSATISFIABLE, /* it lies behind the end */
};

/* Reads the header Range, NULL when there is none, for a file of this size. */
enum file_range_result file_range(const char *header, off_t size, off_t *start, off_t *length)
    __attribute__((warn_unused_result));

#endif
