#include "sandboxd/multipart.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* RFC 2046. */
#define BOUNDARY_MAX_BYTES 70

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

/* Adds a file, and takes its name over. */
static bool add_file(struct multipart *multipart, struct disposition *disposition, const char *bytes, size_t length)
{
    char *filename = disposition->filename != NULL ? disposition->filename : strdup("");
    struct multipart_file *grown = reallocarray(multipart->files, multipart->count + 1, sizeof *grown);

    disposition->filename = NULL;
    if (grown != NULL)
        multipart->files = grown;
    if (grown == NULL || filename == NULL) {
        free(filename);
        return false;
    }
    grown[multipart->count++] = (struct multipart_file){.filename = filename, .bytes = bytes, .length = length};
    return true;
}

/* Adds one part, from the end of its boundary line to the CRLF before the next one. */
static bool add_part(struct multipart *multipart, struct span part)
{
    struct disposition disposition = {0};
    const char *blank = memmem(part.at, part.length, "\r\n\r\n", 4);
    struct span headers;
    bool done = true;

    if (blank == NULL || multipart->count == MULTIPART_FILES_MAX)
        return false;
    /* The part begins with the CRLF of its boundary line; headers may be missing altogether. */
    headers = blank == part.at ? (struct span){part.at, 0} : (struct span){part.at + 2, (size_t)(blank - part.at) - 2};
    if (!read_disposition(&disposition, headers)) {
        done = false;
    } else if (disposition.name != NULL && strcmp(disposition.name, "file") == 0) {
        done = add_file(multipart, &disposition, blank + 4, part.length - (size_t)(blank + 4 - part.at));
    }
    disposition_free(&disposition);
    return done;
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

/* Whether a delimiter at this place ends its line: CRLF, or "--" for the last, after optional blanks. */
static bool ends_line(const char *at, const char *end, bool *last, const char **line_end)
{
    *last = end - at >= 2 && memcmp(at, "--", 2) == 0;
    if (*last)
        return true;
    while (at < end && (*at == ' ' || *at == '\t'))
        at++;
    *line_end = at;
    return end - at >= 2 && memcmp(at, "\r\n", 2) == 0;
}

bool multipart_parse(struct multipart *multipart, const char *boundary, const char *body, size_t length)
{
    char delimiter[BOUNDARY_MAX_BYTES + 5] = "\r\n--";
    size_t delimiter_length;
    const char *end = body + length;
    const char *part = NULL; /* NULL: before the first delimiter */
    const char *from = body;
    bool last = false;

    *multipart = (struct multipart){0};
    strncat(delimiter, boundary, BOUNDARY_MAX_BYTES);
    delimiter_length = strlen(delimiter);
    while (!last) {
        const char *found, *after, *line_end = NULL;

        /* The first delimiter may stand at the very start, without its CRLF. */
        if (from == body && length >= delimiter_length - 2 && memcmp(body, delimiter + 2, delimiter_length - 2) == 0) {
            found = body;
            after = body + delimiter_length - 2;
        } else {
            found = memmem(from, (size_t)(end - from), delimiter, delimiter_length);
            if (found == NULL)
                return false;
            after = found + delimiter_length;
        }
        from = after;
        if (!ends_line(after, end, &last, &line_end))
            continue; /* not a delimiter: the boundary's text within a part */
        if (part != NULL && !add_part(multipart, (struct span){part, (size_t)(found - part)}))
            return false;
        part = line_end;
    }
    return true;
}

void multipart_free(struct multipart *multipart)
{
    for (size_t i = 0; i < multipart->count; i++)
        free(multipart->files[i].filename);
    free(multipart->files);
}
