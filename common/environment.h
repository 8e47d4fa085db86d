/*
 * environment: the variables that count for a run: those the process was started with, below them the keys that have
 * files of their own, and below them those of the project's `.env` (http-api.md 15.2). A variable the process was
 * started with always wins.
 */
#ifndef COMMON_ENVIRONMENT_H
#define COMMON_ENVIRONMENT_H

#include "common/key_files.h"

struct environment;      /* one state of it: immutable, shared by reference */
struct environment_file; /* the `.env` of a project, looked at again when asked */

/* Reads <project_dir>/.env, which need not exist. NULL for lack of memory. */
struct environment_file *environment_file_new(const char *project_dir) __attribute__((warn_unused_result));
/*
 * As environment_file_new(), but a file that cannot be read leaves last_good, a state of another such file, in use. The
 * keys of last_good stay in any case.
 */
struct environment_file *environment_file_resume(const char *project_dir, struct environment *last_good)
    __attribute__((warn_unused_result));
void environment_file_free(struct environment_file *file);

/*
 * The environment now: one stat(2) when the file is unchanged. What cannot be read or has grown out of bounds leaves
 * the last good state, with one warning per change. Never NULL; the reference is the caller's.
 */
struct environment *environment_current(struct environment_file *file) __attribute__((warn_unused_result));

/* The same `.env` with these keys, and no others. NULL for lack of memory. */
struct environment *environment_with_keys(const struct environment *environment, struct key_files *keys)
    __attribute__((warn_unused_result));

struct environment *environment_ref(struct environment *environment);
void environment_unref(struct environment *environment); /* NULL is allowed */

/* NULL when unset; set but empty is "". Valid while the reference is held. */
const char *environment_get(const struct environment *environment, const char *name);
/* As environment_get(), but empty counts as unset: what nearly all variables mean. */
const char *environment_value(const struct environment *environment, const char *name);

#endif
