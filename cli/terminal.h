/*
 * terminal: text for a person or for a file. What comes from outside (agents, clients, servers) may hold anything: on a
 * terminal it is shown without what would steer it: control characters, escape sequences, broken bytes, characters that
 * turn the direction of writing. A file or pipe gets the bytes as they are.
 */
#ifndef CLI_TERMINAL_H
#define CLI_TERMINAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct terminal {
    FILE *stream;
    bool is_tty;
    bool has_colour; /* a terminal, NO_COLOR is not set, TERM is not dumb */
};

enum style { STYLE_NONE, STYLE_BOLD, STYLE_DIM, STYLE_RED, STYLE_GREEN, STYLE_YELLOW };

/* Of a stream that stays the caller's. */
void terminal_open(struct terminal *terminal, FILE *stream);

/* Columns it has now; SIZE_MAX for a file or pipe. */
size_t terminal_columns(const struct terminal *terminal);

/* What follows is shown so; STYLE_NONE ends it. */
void terminal_style(const struct terminal *terminal, enum style style);

/* Outside text of any length and lines. Of a file or pipe: as it is. */
void terminal_text(const struct terminal *terminal, const char *text, size_t length);

/* Outside text as a part of a line: a line end is a blank, and nothing is ever raw, in a file neither. */
void terminal_line(const struct terminal *terminal, const char *text);

/* Likewise, at most so many columns; what is cut ends with an ellipsis. Returns the columns it took. */
size_t terminal_cell(const struct terminal *terminal, const char *text, size_t columns);

/* The columns that terminal_cell() would take without a limit. */
size_t terminal_width(const char *text);

/* Forgets what is on the screen and goes to its top. Nothing of a file or pipe. */
void terminal_clear(const struct terminal *terminal);

/*
 * At the end: is everything written? False with a message, which a reader who has left (EPIPE) does not get.
 */
bool terminal_close(const char *command, FILE *stream) __attribute__((warn_unused_result));

#endif
