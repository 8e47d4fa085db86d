#include "worker/memory_watch.h"

#include <event2/event.h>
#include <stdlib.h>

static unsigned long refusals;

unsigned long memory_refusals(void)
{
    return refusals;
}

void memory_note_refusal(void)
{
    refusals++;
}

char *json_dumps_whole(const json_t *json, size_t flags)
{
    unsigned long before = refusals;
    char *text = json_dumps(json, flags);

    if (refusals == before)
        return text;
    free(text);
    return NULL;
}

static void *watched_malloc(size_t size)
{
    void *memory = malloc(size);

    if (memory == NULL)
        memory_note_refusal();
    return memory;
}

static void *watched_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size);

    if (memory == NULL && size > 0)
        memory_note_refusal();
    return memory;
}

void memory_watch_start(void)
{
    json_set_alloc_funcs(watched_malloc, free);
    event_set_mem_functions(watched_malloc, watched_realloc, free);
}
