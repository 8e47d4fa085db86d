#include "worker/output_event.h"

#include <string.h>

struct cursor {
    const char *at, *end;
};

/* One token, and the blanks before it. Inlined, so that each comparison is of a length known to the compiler. */
__attribute__((always_inline)) static inline bool take(struct cursor *cursor, const char *token, size_t length)
{
    while (cursor->at < cursor->end &&
           (*cursor->at == ' ' || *cursor->at == '\n' || *cursor->at == '\t' || *cursor->at == '\r'))
        cursor->at++;
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, token, length) != 0)
        return false;
    cursor->at += length;
    return true;
}

#define TAKE(cursor, token) take(cursor, token, sizeof token - 1)

static bool is_over(struct cursor *cursor)
{
    return TAKE(cursor, "") && cursor->at == cursor->end;
}

/* The rest of a string whose first quote was taken. */
static bool take_text(struct cursor *cursor, struct output_event *event)
{
    const char *quote = memchr(cursor->at, '"', (size_t)(cursor->end - cursor->at));

    if (quote == NULL)
        return false;
    event->text = cursor->at;
    event->length = (size_t)(quote - cursor->at);
    cursor->at = quote + 1;
    return memchr(event->text, '\\', event->length) == NULL;
}

bool output_event_read(const char *payload, size_t length, struct output_event *event)
{
    struct cursor cursor = {.at = payload, .end = payload + length};

    if (!TAKE(&cursor, "{") || !TAKE(&cursor, "\"event\"") || !TAKE(&cursor, ":") || !TAKE(&cursor, "{") ||
        !TAKE(&cursor, "\"data\"") || !TAKE(&cursor, ":") || !TAKE(&cursor, "{"))
        return false;
    event->is_stderr = TAKE(&cursor, "\"stderr\"");
    if (!event->is_stderr && !TAKE(&cursor, "\"stdout\""))
        return false;
    return TAKE(&cursor, ":") && TAKE(&cursor, "\"") && take_text(&cursor, event) && TAKE(&cursor, "}") &&
           TAKE(&cursor, "}") && TAKE(&cursor, "}") && is_over(&cursor);
}
