#include "worker/line_buffer.h"

#include "worker/byte_space.h"

#include <stdlib.h>
#include <string.h>

/* A long line's buffer is given back, so that one big event does not stay in memory for the rest of a run. */
#define KEEP_CAPACITY_BYTES 16384

void line_buffer_init(struct line_buffer *buffer, size_t limit_bytes)
{
    *buffer = (struct line_buffer){.limit_bytes = limit_bytes};
}

void line_buffer_release(struct line_buffer *buffer)
{
    free(buffer->bytes);
    buffer->bytes = NULL;
    buffer->length = buffer->capacity = 0;
}

static enum line_result append(struct line_buffer *buffer, const char *bytes, size_t length)
{
    if (length > buffer->limit_bytes - buffer->length)
        return LINE_TOO_LONG;
    if (!byte_space_reserve(&buffer->bytes, &buffer->capacity, buffer->length + length))
        return LINE_NO_MEMORY;
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
    return LINE_OK;
}

static enum line_result emit_rest(struct line_buffer *buffer, line_callback on_line, void *context)
{
    bool more = on_line(context, buffer->bytes, buffer->length);

    buffer->length = 0;
    if (buffer->capacity > KEEP_CAPACITY_BYTES)
        line_buffer_release(buffer);
    return more ? LINE_OK : LINE_STOPPED;
}

enum line_result line_buffer_feed(struct line_buffer *buffer, const char *bytes, size_t length, line_callback on_line,
                                  void *context)
{
    enum line_result result;

    while (length > 0) {
        const char *lf = memchr(bytes, '\n', length);
        size_t piece = lf != NULL ? (size_t)(lf - bytes) : length;

        if (lf == NULL)
            return append(buffer, bytes, piece);
        if (buffer->length > 0) {
            result = append(buffer, bytes, piece);
            if (result == LINE_OK)
                result = emit_rest(buffer, on_line, context);
        } else if (piece > buffer->limit_bytes) {
            result = LINE_TOO_LONG;
        } else {
            result = on_line(context, bytes, piece) ? LINE_OK : LINE_STOPPED;
        }
        if (result != LINE_OK)
            return result;
        bytes += piece + 1;
        length -= piece + 1;
    }
    return LINE_OK;
}

enum line_result line_buffer_finish(struct line_buffer *buffer, line_callback on_line, void *context)
{
    return buffer->length > 0 ? emit_rest(buffer, on_line, context) : LINE_OK;
}
