/* program: what the programs of the benchmark begin with. Each ends with a message at what it cannot do without. */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include <event2/event.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static inline void *must(void *pointer)
{
    if (pointer == NULL) {
        perror("out of memory");
        exit(EXIT_FAILURE);
    }
    return pointer;
}

/* The number that an option has. */
static inline uint64_t program_number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (end == text || *end != '\0') {
        fprintf(stderr, "%s is no number\n", text);
        exit(2);
    }
    return value;
}

static inline void program_catch(struct event_base *base, int number_of_signal, event_callback_fn callback)
{
    event_add(must(evsignal_new(base, number_of_signal, callback, base)), NULL);
}

static inline void program_on_end(evutil_socket_t fd, short what, void *base)
{
    (void)fd;
    (void)what;
    event_base_loopbreak(base);
}

/* A loop with as many descriptors as may be, which TERM ends. */
static inline struct event_base *program_loop(void)
{
    struct event_base *base = must(event_base_new());
    struct rlimit limit;

    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    program_catch(base, SIGTERM, program_on_end);
    return base;
}

#endif
