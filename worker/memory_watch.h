/*
 * memory_watch: whether memory was refused on the way. jansson and libevent leave out what they have no memory for: a
 * member, an item, bytes of a buffer. Whoever makes one thing with many of their calls compares memory_refusals()
 * before and after instead of looking at each: what lacks a part is not taken for whole.
 */
#ifndef WORKER_MEMORY_WATCH_H
#define WORKER_MEMORY_WATCH_H

#include <jansson.h>

/* Once in a process, before any other call of jansson or libevent. */
void memory_watch_start(void);

/* How often this process was refused memory by way of these libraries, or noted so. */
unsigned long memory_refusals(void);

/* json_dumps(): jansson 2.14 leaves keys out of the text for lack of memory. NULL then; the caller's to free(). */
char *json_dumps_whole(const json_t *json, size_t flags) __attribute__((warn_unused_result));

/* Of a request of our own, by who cannot tell the caller. */
void memory_note_refusal(void);

#endif
