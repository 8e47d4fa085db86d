/*
 * json_text_internal: what a string of JSON is made of, for json_text_check.c, which checks it, and json_text.c, which
 * decodes it. Nobody else includes it.
 */
#ifndef WORKER_JSON_TEXT_INTERNAL_H
#define WORKER_JSON_TEXT_INTERNAL_H

#include "worker/json_text.h"

#include <stdint.h>
#include <string.h>

static inline const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/*
 * Behind the bytes that stand for themselves in a string: to the first quote, backslash or control character. Eight at
 * a time: nearly all of a prompt is plain.
 */
static inline const char *behind_plain(const char *at, const char *end)
{
    const uint64_t ones = 0x0101010101010101, tops = 0x8080808080808080;

    while (end - at >= 8) {
        uint64_t word, quotes, backslashes;

        memcpy(&word, at, sizeof word);
        quotes = word ^ (ones * '"');
        backslashes = word ^ (ones * '\\');
        /* A top bit for each byte below 0x20, and for each that became zero. */
        if ((((word - ones * 0x20) & ~word) | ((quotes - ones) & ~quotes) | ((backslashes - ones) & ~backslashes)) &
            tops)
            break;
        at += 8;
    }
    while (at < end && (unsigned char)*at >= 0x20 && *at != '"' && *at != '\\')
        at++;
    return at;
}

static inline bool is_high_surrogate(int32_t code)
{
    return code >= 0xd800 && code <= 0xdbff;
}

static inline bool is_low_surrogate(int32_t code)
{
    return code >= 0xdc00 && code <= 0xdfff;
}

/* What a letter after a backslash stands for; NUL for none. */
char json_text_meaning_of(char letter);

/* uXXXX, with the second half of a pair: the code point, a surrogate that is alone, or -1. */
int32_t json_text_read_unicode(const char *at, const char *end, size_t *length);

#endif
