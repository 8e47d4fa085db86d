#include "worker/stderr_text.h"

#include "worker/byte_space.h"
#include "worker/memory_watch.h"
#include "worker/utf8.h"

#include <stdlib.h>
#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

bool stderr_text_append(struct stderr_text *text, const char *bytes, size_t length)
{
    if (!byte_space_reserve(&text->bytes, &text->capacity, text->length + length))
        return false;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    return true;
}

void stderr_text_release(struct stderr_text *text)
{
    free(text->bytes);
    *text = (struct stderr_text){0};
}

json_t *json_lossy_string(const char *bytes, size_t length)
{
    json_t *string = json_stringn(bytes, length);
    char *repaired;
    size_t used = 0;

    if (string != NULL)
        return string;
    repaired = malloc(length * (sizeof replacement - 1) + 1);
    if (repaired == NULL) {
        memory_note_refusal();
        return NULL;
    }
    for (size_t i = 0; i < length;) {
        size_t valid = utf8_sequence(bytes + i, length - i);

        memcpy(repaired + used, valid > 0 ? bytes + i : replacement, valid > 0 ? valid : sizeof replacement - 1);
        used += valid > 0 ? valid : sizeof replacement - 1;
        i += valid > 0 ? valid : 1;
    }
    string = json_stringn(repaired, used);
    free(repaired);
    return string;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f';
}

/* Cuts the first `taken` bytes off and makes an event of them. */
static json_t *take(struct stderr_text *text, size_t taken)
{
    size_t begin = 0, end = taken;
    json_t *event = NULL;

    while (begin < end && is_blank(text->bytes[begin]))
        begin++;
    while (end > begin && is_blank(text->bytes[end - 1]))
        end--;
    if (end > begin)
        event = json_pack("{s:s, s:o}", "type", "stderr", "data", json_lossy_string(text->bytes + begin, end - begin));
    text->length -= taken;
    if (text->length > 0)
        memmove(text->bytes, text->bytes + taken, text->length);
    else
        stderr_text_release(text);
    return event;
}

json_t *stderr_text_take_lines(struct stderr_text *text)
{
    const char *last = text->length > 0 ? memrchr(text->bytes, '\n', text->length) : NULL;

    if (last != NULL)
        return take(text, (size_t)(last - text->bytes) + 1);
    return text->length >= STDERR_REST_MAX_BYTES ? stderr_text_take_rest(text) : NULL;
}

json_t *stderr_text_take_all(struct stderr_text *text)
{
    return text->length > 0 ? take(text, text->length) : NULL;
}

json_t *stderr_text_take_rest(struct stderr_text *text)
{
    /* A sequence is at most four bytes long: an unfinished one begins in the last three. */
    for (size_t back = 1; back <= 3 && back <= text->length; back++) {
        unsigned char c = (unsigned char)text->bytes[text->length - back];

        if ((c & 0xc0) == 0x80)
            continue;
        if (utf8_announced(c) > back)
            return text->length > back ? take(text, text->length - back) : NULL;
        break;
    }
    return stderr_text_take_all(text);
}
