#include "sandboxd/memory.h"

#include "common/log.h"

#include <stdlib.h>

void *memory_new(size_t bytes)
{
    void *memory = calloc(1, bytes);

    if (memory == NULL)
        log_panic("out of memory");
    return memory;
}
