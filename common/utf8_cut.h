/*
 * utf8_cut: how much of a text fits.
 */
#ifndef COMMON_UTF8_CUT_H
#define COMMON_UTF8_CUT_H

#include <stddef.h>

/* The length of a UTF-8 text that was cut to at most so many bytes, between characters. */
static inline size_t utf8_cut(const char *text, size_t length, size_t max_bytes)
{
    if (length <= max_bytes)
        return length;
    while (max_bytes > 0 && ((unsigned char)text[max_bytes] & 0xc0) == 0x80)
        max_bytes--;
    return max_bytes;
}

#endif
