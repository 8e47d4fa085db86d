#include "cli/terminal.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

#define FALLBACK_COLUMNS 80

static bool is_set(const char *variable)
{
    const char *value = getenv(variable);

    return value != NULL && *value != '\0';
}

/* The locale says what a character is. The plain C locale knows ASCII only, on terminals that know all of UTF-8. */
static void use_locale(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    if (setlocale(LC_CTYPE, "") == NULL || strcmp(nl_langinfo(CODESET), "ANSI_X3.4-1968") == 0)
        (void)setlocale(LC_CTYPE, "C.UTF-8");
}

void terminal_open(struct terminal *terminal, FILE *stream)
{
    const char *kind = getenv("TERM");

    use_locale();
    terminal->stream = stream;
    terminal->is_tty = isatty(fileno(stream)) == 1;
    terminal->has_colour = terminal->is_tty && !is_set("NO_COLOR") && kind != NULL && strcmp(kind, "dumb") != 0;
}

size_t terminal_columns(const struct terminal *terminal)
{
    struct winsize size;

    if (!terminal->is_tty)
        return SIZE_MAX;
    if (ioctl(fileno(terminal->stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        return size.ws_col;
    return FALLBACK_COLUMNS;
}

void terminal_style(const struct terminal *terminal, enum style style)
{
    static const char *const codes[] = {
        [STYLE_NONE] = "\033[0m", [STYLE_BOLD] = "\033[1m",   [STYLE_DIM] = "\033[2m",
        [STYLE_RED] = "\033[31m", [STYLE_GREEN] = "\033[32m", [STYLE_YELLOW] = "\033[33m",
    };

    if (terminal->has_colour)
        fputs(codes[style], terminal->stream);
}

void terminal_clear(const struct terminal *terminal)
{
    if (terminal->is_tty)
        fputs("\033[H\033[2J\033[3J", terminal->stream);
}

/* --- characters ----------------------------------------------------------------------------------------- */

/* Marks that turn the direction of what follows: a line could then read otherwise than it is. */
static bool turns_direction(wchar_t character)
{
    return (character >= 0x202a && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
}

struct character {
    const char *shown; /* what may be written for it */
    size_t shown_bytes;
    size_t columns;
    size_t bytes; /* in the text */
};

/* The next character as it may be shown. What must not be is a question mark: nothing vanishes unseen. */
static struct character next_character(const char *text, size_t length)
{
    struct character next = {.shown = "?", .shown_bytes = 1, .columns = 1, .bytes = 1};
    mbstate_t state = {0};
    wchar_t character;
    size_t bytes = mbrtowc(&character, text, length, &state);
    int width;

    if (bytes == 0 || bytes > length)
        return next;
    next.bytes = bytes;
    width = wcwidth(character);
    if (width < 0 || turns_direction(character))
        return next;
    next.shown = text;
    next.shown_bytes = bytes;
    next.columns = (size_t)width;
    return next;
}

/* A control character that only moves to where text goes on. */
static bool is_layout(char c)
{
    return c == '\n' || c == '\t';
}

void terminal_text(const struct terminal *terminal, const char *text, size_t length)
{
    if (!terminal->is_tty) {
        fwrite(text, 1, length, terminal->stream);
        return;
    }
    while (length > 0) {
        struct character next = next_character(text, length);

        if (is_layout(*text))
            fputc(*text, terminal->stream);
        else if (*text != '\r' || length < 2 || text[1] != '\n')
            fwrite(next.shown, 1, next.shown_bytes, terminal->stream);
        text += next.bytes;
        length -= next.bytes;
    }
}

/* As next_character(), but a line end or tab is a blank. */
static struct character next_in_line(const char *text, size_t length)
{
    struct character next = next_character(text, length);

    if (is_layout(*text) || *text == '\r')
        next.shown = " ";
    return next;
}

size_t terminal_width(const char *text)
{
    size_t length = strlen(text), columns = 0;

    use_locale();
    while (length > 0) {
        struct character next = next_in_line(text, length);

        columns += next.columns;
        text += next.bytes;
        length -= next.bytes;
    }
    return columns;
}

size_t terminal_cell(const struct terminal *terminal, const char *text, size_t columns)
{
    bool is_cut = terminal_width(text) > columns;
    size_t length = strlen(text), used = 0;

    while (length > 0 && columns > 0) {
        struct character next = next_in_line(text, length);

        if (used + next.columns > columns - (is_cut ? 1 : 0))
            break;
        fwrite(next.shown, 1, next.shown_bytes, terminal->stream);
        used += next.columns;
        text += next.bytes;
        length -= next.bytes;
    }
    if (is_cut && columns > 0) {
        fputs("…", terminal->stream);
        used++;
    }
    return used;
}

void terminal_line(const struct terminal *terminal, const char *text)
{
    (void)terminal_cell(terminal, text, SIZE_MAX);
}

bool terminal_close(const char *command, FILE *stream)
{
    bool failed = fflush(stream) != 0 || ferror(stream);

    if (failed && errno != EPIPE && errno != EINTR)
        fprintf(stderr, "%s: cannot write: %s\n", command, strerror(errno));
    return !failed;
}
