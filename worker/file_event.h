/*
 * file_event: a file of the agent as one event to the client (http-api.md 5.6).
 */
#ifndef WORKER_FILE_EVENT_H
#define WORKER_FILE_EVENT_H

#include "worker/event_stream.h"
#include "worker/spool.h"

/*
 * Puts the event; takes the spool over. path is relative to the agent's home; bytes of it that are not UTF-8 become
 * U+FFFD. The base64 is made as the client takes it. Cost: 48 KiB read and encoded at a time.
 */
void file_event_put(struct event_stream *stream, const char *path, struct spool *spool);

#endif
