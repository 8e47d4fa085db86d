#include "worker/query_string.h"

#include "worker/percent.h"

#include <stdlib.h>

/* Percent and plus; out has room for the whole piece and a NUL. */
static size_t decode(struct span piece, char *out)
{
    size_t length = 0;

    for (size_t at = 0; at < piece.length;) {
        char c;

        at += percent_decode(piece.bytes + at, piece.length - at, &c);
        out[length++] = piece.bytes[at - 1] == '+' && c == '+' ? ' ' : c;
    }
    out[length] = '\0';
    return length;
}

static bool name_is(struct span piece, const char *name)
{
    char *decoded = malloc(piece.length + 1);
    bool equal = decoded != NULL && decode(piece, decoded) == strlen(name) && memcmp(decoded, name, strlen(name)) == 0;

    free(decoded);
    return equal;
}

char *query_string_get(struct span query, const char *name, size_t *length)
{
    struct span pair, key, value = {NULL, 0};
    char *decoded;

    while (span_next(&query, '&', &pair)) {
        (void)span_next(&pair, '=', &key);
        if (name_is(key, name))
            value = pair.bytes != NULL ? pair : (struct span){"", 0};
    }
    if (value.bytes == NULL || (decoded = malloc(value.length + 1)) == NULL)
        return NULL;
    *length = decode(value, decoded);
    return decoded;
}
