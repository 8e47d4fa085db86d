/*
 * utf8: what we need to know of UTF-8 in outside bytes.
 */
#ifndef WORKER_UTF8_H
#define WORKER_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of the sequence that a lead byte announces; 0 for a byte that cannot lead. */
size_t utf8_announced(unsigned char lead);
/* Length of the valid sequence at the start of text, 0 if there is none; length > 0. */
size_t utf8_sequence(const char *text, size_t length);
bool utf8_is_valid(const char *text, size_t length);
/* Of valid UTF-8. */
size_t utf8_count_code_points(const char *text, size_t length);
/* Bytes of the first `count` code points of valid UTF-8. */
size_t utf8_prefix(const char *text, size_t length, size_t count);

#endif
