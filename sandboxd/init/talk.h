/* talk: what the files of a Filesystem call inside share: writing records (talk.c), entries (entry.c), watches. */
#ifndef SANDBOXD_INIT_TALK_H
#define SANDBOXD_INIT_TALK_H

#include "sandboxd/init/filesystem.h"

#include <stdbool.h>
#include <stddef.h>

/* Where a conversation lies in its process. */
#define TALK_FD 3

/* Leads one conversation, in a process of its own, which ends with it. */
_Noreturn void talk_lead(int fd);

/* Says on a socket that there will be no conversation: too little of what errno says. */
void talk_refuse(int fd, int error);

/* --- records -------------------------------------------------------------------------------------- */

/* Begins a record; the puts that follow are its body. A body that grows too long is dropped as a whole. */
void talk_begin(enum filesystem_record_kind kind);
void talk_put(const void *bytes, size_t length);
void talk_put_string(const char *text);
void talk_end(void);
/* Sends what waits. Whoever has closed the other end ends this process. */
void talk_flush(void);

/* Says why, and ends this process. */
_Noreturn void talk_fail(enum filesystem_error error, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* What the errno of a call means. */
enum filesystem_error talk_error_of(int error);
/* strerror() as Go words it. */
const char *talk_reason(int error);

/* --- entries -------------------------------------------------------------------------------------- */

/* Puts the entry of a path into the record, under the name shown; false with errno, and then nothing was put. */
bool entry_put(const char *path, const char *shown) __attribute__((warn_unused_result));

/* --- watches -------------------------------------------------------------------------------------- */

/* Watches a directory for ever. */
_Noreturn void watch_run(const char *path, unsigned flags);

#endif
