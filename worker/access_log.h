/*
 * access_log: one line for each HTTP request that has ended (see access_line.h): answered and taken by its client, or
 * left by one of them. A connection that never sent a whole head, and was not answered, leaves no line.
 *
 * Cost: nothing but a comparison with NULL while it is off. Else about 1.2 KB per request in progress, a microsecond
 * to format its line, and one write(2) in the worker's loop when it has ended: the file belongs on a local disk.
 * Every function takes an entry that is NULL.
 */
#ifndef WORKER_ACCESS_LOG_H
#define WORKER_ACCESS_LOG_H

#include "common/settings.h"
#include "worker/access_line.h"
#include "worker/request_guard.h"

struct access_log;
struct access_entry; /* one request */

/* Opens what the settings name: *log is NULL when that is off. False after a line that says why. */
bool access_log_open(const struct settings *settings, struct access_log **log) __attribute__((warn_unused_result));
/* Its entries have ended. */
void access_log_free(struct access_log *log);
/* The file was renamed: opens a new one. */
void access_log_reopen(struct access_log *log);

/* The first byte of a request. NULL while the log is off (NULL), or for lack of memory. */
struct access_entry *access_begin(struct access_log *log);
void access_client(struct access_entry *entry, const char *name);
void access_head(struct access_entry *entry, const struct request_head *head, bool is_http_1_0);
void access_status(struct access_entry *entry, int status);
/* All of the answer is on its way, and none of it will come any more. */
void access_answered(struct access_entry *entry);
bool access_is_answered(const struct access_entry *entry);
/* The client's socket took bytes. */
void access_sent(struct access_entry *entry, uint64_t bytes);
void access_event(struct access_entry *entry);
void access_run(struct access_entry *entry, const struct access_run *run);
/* Writes the line and frees the entry. complete: the client took the whole answer. */
void access_end(struct access_entry *entry, bool complete);

#endif
