/* write_file: a file of the user's, whole or not at all. */
#ifndef CLI_WRITE_FILE_H
#define CLI_WRITE_FILE_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Takes the place of what had the name: a link is followed, mode and owner of the old file stay. A new one has the
 * given mode, less the umask. False with errno; then nothing has changed.
 */
bool write_file(const char *path, const char *text, size_t length, unsigned mode) __attribute__((warn_unused_result));

/* All of it to a descriptor, though a signal comes. False with errno. */
bool write_all(int fd, const char *bytes, size_t length) __attribute__((warn_unused_result));

#endif
