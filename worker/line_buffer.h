/*
 * line_buffer: bytes in, whole lines out, with a cap.
 *
 * Splits at LF only and changes nothing (http-api.md 5.3). A line that came whole in one piece is handed on where it
 * stands; only an unfinished rest is copied.
 */
#ifndef WORKER_LINE_BUFFER_H
#define WORKER_LINE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct line_buffer {
    char *bytes; /* the unfinished line */
    size_t length;
    size_t capacity;
    size_t limit_bytes; /* longest line, without its LF */
};

enum line_result {
    LINE_OK,
    LINE_TOO_LONG,  /* the line passed limit_bytes; the buffer is of no more use */
    LINE_NO_MEMORY, /* likewise */
    LINE_STOPPED,   /* on_line returned false */
};

/* A line without its LF; valid during the call. Returns false to stop. */
typedef bool (*line_callback)(void *context, const char *line, size_t length);

void line_buffer_init(struct line_buffer *buffer, size_t limit_bytes);
void line_buffer_release(struct line_buffer *buffer);

enum line_result line_buffer_feed(struct line_buffer *buffer, const char *bytes, size_t length, line_callback on_line,
                                  void *context) __attribute__((warn_unused_result));
/* The unterminated last line, if there is one; the buffer is empty afterwards. */
enum line_result line_buffer_finish(struct line_buffer *buffer, line_callback on_line, void *context)
    __attribute__((warn_unused_result));

#endif
