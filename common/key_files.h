/*
 * key_files: keys that have files of their own, by the variable each stands for (settings *_file; systemd's
 * LoadCredential= is one way to such a file). Values are secrets: they are wiped before their memory is given back.
 */
#ifndef COMMON_KEY_FILES_H
#define COMMON_KEY_FILES_H

#include <stdbool.h>
#include <stddef.h>

#define KEY_FILE_MAX_BYTES 65536
#define KEY_FILES_MAX      8

struct key_files; /* shared by reference; not changed any more once it is shared */

/* NULL for lack of memory. */
struct key_files *key_files_new(void) __attribute__((warn_unused_result));
struct key_files *key_files_ref(struct key_files *keys); /* NULL is allowed, and gives NULL */
void key_files_unref(struct key_files *keys);            /* NULL is allowed */

/*
 * Reads one: a single line, blanks around it do not count. False with *reason, which is not to be freed. variable is
 * kept as it is, at most KEY_FILES_MAX of them.
 */
bool key_files_read(struct key_files *keys, const char *variable, const char *path, const char **reason)
    __attribute__((warn_unused_result));

/* NULL when it has no file. Valid while the reference is held. */
const char *key_files_get(const struct key_files *keys, const char *variable);

#endif
