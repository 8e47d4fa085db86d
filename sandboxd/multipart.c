#include "sandboxd/multipart.h"

#include "sandboxd/memory.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* RFC 2046. */
#define BOUNDARY_MAX_BYTES 70
/* White space behind a delimiter. */
#define BLANKS_MAX_BYTES 64
/* The headers of one part. */
#define HEAD_MAX_BYTES 16384

/* A piece of text in place. */
struct span {
    const char *at;
    size_t length;
};

/* The value of a part's parameters that matter here; allocated. */
struct disposition {
    char *name;
    char *filename;
};

static void disposition_free(struct disposition *disposition)
{
    free(disposition->name);
    free(disposition->filename);
}

static struct span trim(struct span text)
{
    while (text.length > 0 && (*text.at == ' ' || *text.at == '\t')) {
        text.at++;
        text.length--;
    }
    while (text.length > 0 && (text.at[text.length - 1] == ' ' || text.at[text.length - 1] == '\t'))
        text.length--;
    return text;
}

static bool equals(struct span text, const char *word)
{
    return text.length == strlen(word) && strncasecmp(text.at, word, text.length) == 0;
}

/* Whether a backslash before this byte is an escape. */
static bool is_escaped(char c)
{
    return c != '\0' && strchr("()<>@,;:\\\"/[]?=", c) != NULL;
}

/* Reads a quoted string from its opening quote; moves past it. NULL when it does not end. */
static char *read_quoted(struct span *text)
{
    char *value = malloc(text->length + 1);
    size_t used = 0, i = 1;

    if (value == NULL)
        return NULL;
    for (; i < text->length && text->at[i] != '"'; i++) {
        if (text->at[i] == '\\' && i + 1 < text->length && is_escaped(text->at[i + 1]))
            i++;
        value[used++] = text->at[i];
    }
    if (i >= text->length) {
        free(value);
        return NULL;
    }
    value[used] = '\0';
    text->at += i + 1;
    text->length -= i + 1;
    return value;
}

/* Reads a value up to the next semicolon; moves to it. */
static char *read_token(struct span *text)
{
    const char *end = memchr(text->at, ';', text->length);
    size_t length = end == NULL ? text->length : (size_t)(end - text->at);
    struct span value = trim((struct span){.at = text->at, .length = length});

    text->at += length;
    text->length -= length;
    return strndup(value.at, value.length);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* RFC 2231: charset'language'percent-encoded, decoded in place. false when it is not of that form. */
static bool decode_extended(char *value)
{
    char *language = strchr(value, '\'');
    char *from = language == NULL ? NULL : strchr(language + 1, '\'');
    char *to = value;

    if (from == NULL)
        return false;
    for (from++; *from != '\0'; from++) {
        if (*from == '%' && hex_value(from[1]) >= 0 && hex_value(from[2]) >= 0) {
            *to++ = (char)(hex_value(from[1]) * 16 + hex_value(from[2]));
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return true;
}

/* Keeps the value of one parameter if it matters. The extended form of a name wins over the plain one. */
static bool keep_parameter(struct disposition *disposition, struct span key, char *value, bool *extended)
{
    char **place = NULL;

    if (equals(key, "name")) {
        place = &disposition->name;
    } else if (equals(key, "filename") && !*extended) {
        place = &disposition->filename;
    } else if (equals(key, "filename*")) {
        if (!decode_extended(value)) {
            free(value);
            return false;
        }
        *extended = true;
        place = &disposition->filename;
    }
    if (place == NULL) {
        free(value);
        return true;
    }
    free(*place);
    *place = value;
    return true;
}

/* Reads the parameters after "form-data". */
static bool read_parameters(struct disposition *disposition, struct span text)
{
    bool extended = false;

    for (;;) {
        const char *equal;
        struct span key;
        char *value;

        text = trim(text);
        if (text.length == 0)
            return true;
        if (*text.at != ';')
            return false;
        text.at++;
        text.length--;
        equal = memchr(text.at, '=', text.length);
        if (equal == NULL)
            return trim(text).length == 0;
        key = trim((struct span){.at = text.at, .length = (size_t)(equal - text.at)});
        text.length -= (size_t)(equal + 1 - text.at);
        text.at = equal + 1;
        value = text.length > 0 && *text.at == '"' ? read_quoted(&text) : read_token(&text);
        if (value == NULL || !keep_parameter(disposition, key, value, &extended))
            return false;
    }
}

/* Reads the headers of a part for its Content-Disposition. */
static bool read_disposition(struct disposition *disposition, struct span headers)
{
    while (headers.length > 0) {
        const char *end = memmem(headers.at, headers.length, "\r\n", 2);
        size_t length = end == NULL ? headers.length : (size_t)(end - headers.at);
        const char *colon = memchr(headers.at, ':', length);
        struct span value;

        if (colon != NULL && equals((struct span){headers.at, (size_t)(colon - headers.at)}, "content-disposition")) {
            value = trim((struct span){colon + 1, length - (size_t)(colon + 1 - headers.at)});
            if (value.length < 9 || strncasecmp(value.at, "form-data", 9) != 0)
                return true;
            return read_parameters(disposition, (struct span){value.at + 9, value.length - 9});
        }
        if (end == NULL)
            break;
        headers.length -= length + 2;
        headers.at += length + 2;
    }
    return true;
}

char *multipart_boundary(const char *content_type)
{
    const char *found = strcasestr(content_type, "boundary=");
    struct span text;
    char *boundary;

    if (found == NULL)
        return NULL;
    found += strlen("boundary=");
    text = (struct span){found, strlen(found)};
    boundary = *found == '"' ? read_quoted(&text) : read_token(&text);
    if (boundary != NULL && (*boundary == '\0' || strlen(boundary) > BOUNDARY_MAX_BYTES)) {
        free(boundary);
        return NULL;
    }
    return boundary;
}

/* --- the body ------------------------------------------------------------------------------------- */

/* Where the bytes at the front of the input belong. */
enum multipart_state {
    STATE_HEAD,  /* from the CRLF of a delimiter's line on */
    STATE_FILE,  /* a part that is a file */
    STATE_OTHER, /* a part that is passed over; what stands before the first delimiter */
    STATE_END,   /* behind the last delimiter */
};

struct multipart {
    enum multipart_state state;
    bool begun;
    bool at_first; /* the CRLF that may begin the next delimiter is at the front, and no byte of the part itself */
    char delimiter[sizeof "\r\n--" + BOUNDARY_MAX_BYTES];
    size_t delimiter_length;
    char *filename;
};

struct multipart *multipart_new(const char *boundary)
{
    struct multipart *multipart = memory_new(sizeof *multipart);

    multipart->state = STATE_OTHER;
    multipart->delimiter_length =
        (size_t)snprintf(multipart->delimiter, sizeof multipart->delimiter, "\r\n--%s", boundary);
    return multipart;
}

void multipart_free(struct multipart *multipart)
{
    if (multipart == NULL)
        return;
    free(multipart->filename);
    free(multipart);
}

const char *multipart_filename(const struct multipart *multipart)
{
    return multipart->filename;
}

/* What stands where the text of a delimiter was found. */
enum line {
    LINE_NONE,       /* something else follows the text */
    LINE_INCOMPLETE, /* its line is not all there */
    LINE_NEXT,       /* a part begins */
    LINE_LAST,       /* nothing comes */
};

/* Looks at the line of a delimiter; *length is what it takes without the CRLF at its end. */
static enum line read_line(const struct multipart *multipart, struct evbuffer *in, size_t at, size_t *length)
{
    char rest[BLANKS_MAX_BYTES + 2];
    struct evbuffer_ptr from;
    size_t got, blanks = 0;

    *length = multipart->delimiter_length;
    if (evbuffer_ptr_set(in, &from, at + *length, EVBUFFER_PTR_SET) < 0)
        return LINE_INCOMPLETE;
    got = (size_t)evbuffer_copyout_from(in, &from, rest, sizeof rest);
    if (got >= 2 && memcmp(rest, "--", 2) == 0)
        return LINE_LAST;
    while (blanks < got && (rest[blanks] == ' ' || rest[blanks] == '\t'))
        blanks++;
    *length += blanks;
    if (got - blanks >= 2)
        return memcmp(rest + blanks, "\r\n", 2) == 0 ? LINE_NEXT : LINE_NONE;
    return got < sizeof rest ? LINE_INCOMPLETE : LINE_NONE;
}

/*
 * Looks for the next delimiter. *before: how many bytes are sure to stand before it. The line is LINE_NONE when there
 * is none yet, LINE_INCOMPLETE when more bytes tell.
 */
static enum line find_delimiter(const struct multipart *multipart, struct evbuffer *in, size_t *before, size_t *length)
{
    struct evbuffer_ptr from;
    size_t held = multipart->delimiter_length - 1;

    evbuffer_ptr_set(in, &from, 0, EVBUFFER_PTR_SET);
    for (;;) {
        struct evbuffer_ptr found = evbuffer_search(in, multipart->delimiter, multipart->delimiter_length, &from);
        enum line line;

        if (found.pos < 0)
            break;
        *before = (size_t)found.pos;
        line = read_line(multipart, in, *before, length);
        if (line != LINE_NONE)
            return line;
        from = found;
        evbuffer_ptr_set(in, &from, 1, EVBUFFER_PTR_ADD);
    }
    *before = evbuffer_get_length(in) > held ? evbuffer_get_length(in) - held : 0;
    return LINE_NONE;
}

/* Takes the head of a part: whose bytes come now. false when it is malformed. */
static bool take_head(struct multipart *multipart, struct evbuffer *in, size_t length)
{
    struct disposition disposition = {0};
    const char *at = (const char *)evbuffer_pullup(in, (ev_ssize_t)length + 4);
    /* Headers may be missing altogether: the CRLF of the delimiter's line then begins the blank line. */
    struct span headers = {.at = at + 2, .length = length == 0 ? 0 : length - 2};
    bool good = memmem(at, length, multipart->delimiter, multipart->delimiter_length) == NULL &&
                read_disposition(&disposition, headers);

    multipart->state = STATE_OTHER;
    if (good && disposition.name != NULL && strcmp(disposition.name, "file") == 0) {
        multipart->state = STATE_FILE;
        free(multipart->filename);
        multipart->filename = disposition.filename != NULL ? disposition.filename : strdup("");
        disposition.filename = NULL;
    }
    disposition_free(&disposition);
    /* The second CRLF stays: the delimiter of a part without bytes may begin with it. */
    evbuffer_drain(in, length + 2);
    multipart->at_first = true;
    return good && (multipart->state != STATE_FILE || multipart->filename != NULL);
}

/* In a head. */
static enum multipart_event read_head(struct multipart *multipart, struct evbuffer *in)
{
    struct evbuffer_ptr blank = evbuffer_search(in, "\r\n\r\n", 4, NULL);

    if (blank.pos < 0 && evbuffer_get_length(in) <= HEAD_MAX_BYTES)
        return MULTIPART_MORE;
    if (blank.pos < 0 || blank.pos > HEAD_MAX_BYTES || !take_head(multipart, in, (size_t)blank.pos))
        return MULTIPART_MALFORMED;
    return multipart->state == STATE_FILE ? MULTIPART_FILE : MULTIPART_AGAIN;
}

/* In a part: gives its bytes, or passes over them, up to the delimiter. */
static enum multipart_event read_part(struct multipart *multipart, struct evbuffer *in, size_t *length)
{
    bool is_file = multipart->state == STATE_FILE;
    size_t before, line_length = 0;
    enum line line = find_delimiter(multipart, in, &before, &line_length);
    bool is_whole = line == LINE_NEXT || line == LINE_LAST;

    if (multipart->at_first && (before != 0 || !is_whole)) {
        if (before < 2)
            return MULTIPART_MORE;
        evbuffer_drain(in, 2);
        before -= 2;
    }
    multipart->at_first = false;
    if (before > 0 && is_file) {
        *length = before;
        return MULTIPART_BYTES;
    }
    evbuffer_drain(in, before);
    if (!is_whole)
        return MULTIPART_MORE;
    evbuffer_drain(in, line_length);
    multipart->state = line == LINE_NEXT ? STATE_HEAD : STATE_END;
    return is_file ? MULTIPART_FILE_END : MULTIPART_AGAIN;
}

enum multipart_event multipart_next(struct multipart *multipart, struct evbuffer *in, size_t *length)
{
    enum multipart_event event = MULTIPART_AGAIN;

    if (!multipart->begun) {
        /* The first delimiter may stand at the very start, without its CRLF. */
        evbuffer_prepend(in, "\r\n", 2);
        multipart->begun = multipart->at_first = true;
    }
    while (event == MULTIPART_AGAIN && multipart->state != STATE_END)
        event = multipart->state == STATE_HEAD ? read_head(multipart, in) : read_part(multipart, in, length);
    return event == MULTIPART_AGAIN ? MULTIPART_END : event;
}
