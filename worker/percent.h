/*
 * percent: the percent-encoding of request targets.
 */
#ifndef WORKER_PERCENT_H
#define WORKER_PERCENT_H

#include <stddef.h>

static inline int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes one byte of bytes[0..length), length > 0, into *out; returns how many were taken. A lone % stands for itself.
 */
static inline size_t percent_decode(const char *bytes, size_t length, char *out)
{
    *out = bytes[0];
    if (bytes[0] != '%' || length < 3 || hex_digit(bytes[1]) < 0 || hex_digit(bytes[2]) < 0)
        return 1;
    *out = (char)(hex_digit(bytes[1]) * 16 + hex_digit(bytes[2]));
    return 3;
}

#endif
