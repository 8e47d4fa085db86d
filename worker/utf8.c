#include "worker/utf8.h"

#include <stdint.h>
#include <string.h>

size_t utf8_announced(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead < 0xe0)
        return 2;
    if (lead >= 0xe0 && lead < 0xf0)
        return 3;
    return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

static bool continues(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

size_t utf8_sequence(const char *text, size_t length)
{
    unsigned char lead = (unsigned char)text[0];
    size_t wanted = utf8_announced(lead);
    unsigned char second;

    if (wanted == 0 || wanted > length)
        return 0;
    for (size_t i = 1; i < wanted; i++) {
        if (!continues(text[i]))
            return 0;
    }
    if (wanted == 1)
        return 1;
    /* Overlong forms, surrogates, beyond U+10FFFF. */
    second = (unsigned char)text[1];
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) || (lead == 0xf0 && second < 0x90) ||
        (lead == 0xf4 && second > 0x8f))
        return 0;
    return wanted;
}

bool utf8_is_valid(const char *text, size_t length)
{
    const uint64_t tops = 0x8080808080808080;
    size_t i = 0;

    while (i < length) {
        size_t sequence = 1;
        uint64_t word;

        /* Eight at a time: nearly all of a prompt is ASCII. */
        if (length - i >= sizeof word) {
            memcpy(&word, text + i, sizeof word);
            if ((word & tops) == 0) {
                i += sizeof word;
                continue;
            }
        }
        if ((unsigned char)text[i] >= 0x80)
            sequence = utf8_sequence(text + i, length - i);
        if (sequence == 0)
            return false;
        i += sequence;
    }
    return true;
}

size_t utf8_count_code_points(const char *text, size_t length)
{
    size_t count = 0;

    for (size_t i = 0; i < length; i++)
        count += !continues(text[i]);
    return count;
}

size_t utf8_prefix(const char *text, size_t length, size_t count)
{
    size_t i = 0;

    for (; i < length; i++) {
        if (!continues(text[i]) && count-- == 0)
            break;
    }
    return i;
}
