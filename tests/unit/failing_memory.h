/*
 * failing_memory: memory that runs out at a chosen request. The Makefile links test_no_memory_*.c so that what the code
 * under test asks of libc comes through here, and memory_watch_start() lets jansson and libevent ask here too.
 *
 * A step is done again and again, each time with a later request refused, until none is: whoever lacked memory must
 * have said so. valgrind and the sanitizers see to it that nothing is lost or used then.
 */
#ifndef TESTS_UNIT_FAILING_MEMORY_H
#define TESTS_UNIT_FAILING_MEMORY_H

#include "tests/unit/unit.h"

#include <errno.h>

static struct {
    long refused; /* the number of the request that is refused; 0: none */
    long asked;
} memory;

/* Counts a request; true when this is the one. */
static inline bool memory_is_refused(void)
{
    if (memory.refused == 0 || ++memory.asked != memory.refused)
        return false;
    errno = ENOMEM;
    return true;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t length);
int __real_vasprintf(char **out, const char *format, va_list args);
int __real___vasprintf_chk(char **out, int flag, const char *format, va_list args);
FILE *__real_open_memstream(char **out, size_t *size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t length);
int __wrap_asprintf(char **out, const char *format, ...);
int __wrap_vasprintf(char **out, const char *format, va_list args);
int __wrap___asprintf_chk(char **out, int flag, const char *format, ...);
int __wrap___vasprintf_chk(char **out, int flag, const char *format, va_list args);
FILE *__wrap_open_memstream(char **out, size_t *size);

void *__wrap_malloc(size_t size)
{
    return memory_is_refused() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return memory_is_refused() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return memory_is_refused() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
    return memory_is_refused() ? NULL : __real_reallocarray(old, count, size);
}

char *__wrap_strdup(const char *text)
{
    return memory_is_refused() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t length)
{
    return memory_is_refused() ? NULL : __real_strndup(text, length);
}

int __wrap_vasprintf(char **out, const char *format, va_list args)
{
    return memory_is_refused() ? -1 : __real_vasprintf(out, format, args);
}

int __wrap_asprintf(char **out, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = __wrap_vasprintf(out, format, args);
    va_end(args);
    return length;
}

int __wrap___vasprintf_chk(char **out, int flag, const char *format, va_list args)
{
    return memory_is_refused() ? -1 : __real___vasprintf_chk(out, flag, format, args);
}

int __wrap___asprintf_chk(char **out, int flag, const char *format, ...)
{
    va_list args;
    int length;

    va_start(args, format);
    length = __wrap___vasprintf_chk(out, flag, format, args);
    va_end(args);
    return length;
}

FILE *__wrap_open_memstream(char **out, size_t *size)
{
    return memory_is_refused() ? NULL : __real_open_memstream(out, size);
}

/* Does it with the request of that number refused. True: it worked, and no request was refused. */
static inline bool memory_try(const char *name, bool (*step)(void), long refused)
{
    bool worked;

    memory.asked = 0;
    memory.refused = refused;
    worked = step();
    memory.refused = 0;
    if (worked != (memory.asked < refused))
        fail_msg("%s: request %ld of %ld for memory %s", name, refused, memory.asked,
                 worked ? "was refused, and nobody was told" : "was not made, and it did not work");
    return worked;
}

static inline void memory_sweep(const char *name, bool (*step)(void))
{
    long refused = 1;

    while (!memory_try(name, step, refused))
        refused++;
    if (refused == 1)
        fail_msg("%s wants no memory", name);
}

/* For steps that get over it by themselves: they must work whatever is refused. */
static inline void memory_survive(const char *name, bool (*step)(void))
{
    long refused = 0;

    do {
        memory.asked = 0;
        memory.refused = ++refused;
        if (!step())
            fail_msg("%s: request %ld for memory was refused, and it did not get over it", name, refused);
    } while (memory.asked >= refused);
    memory.refused = 0;
}

#endif
