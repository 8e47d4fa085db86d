/* fuzz_buffer: what two readers made of the same bytes. */
#ifndef TESTS_FUZZ_FUZZ_BUFFER_H
#define TESTS_FUZZ_FUZZ_BUFFER_H

#include <event2/buffer.h>
#include <stdbool.h>
#include <string.h>

static inline bool fuzz_buffer_holds(struct evbuffer *buffer, const void *bytes, size_t length)
{
    return evbuffer_get_length(buffer) == length &&
           (length == 0 || memcmp(evbuffer_pullup(buffer, -1), bytes, length) == 0);
}

static inline bool fuzz_buffers_equal(struct evbuffer *one, struct evbuffer *other)
{
    return fuzz_buffer_holds(one, evbuffer_pullup(other, -1), evbuffer_get_length(other));
}

#endif
