/*
 * file_event: a file of the agent as one event to the client (http-api.md 5.6).
 */
#ifndef WORKER_FILE_EVENT_H
#define WORKER_FILE_EVENT_H

#include "worker/event_stream.h"

/*
 * Puts the event and flushes it. path is relative to the agent's home; bytes of it that are not UTF-8 become U+FFFD.
 * The base64 is made block by block: the event is never held a second time beside the stream's own output.
 */
void file_event_put(struct event_stream *stream, const char *path, const char *bytes, size_t length);

#endif
