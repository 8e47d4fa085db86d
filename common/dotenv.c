#include "common/dotenv.h"

#include <errno.h>
#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define BYTE_ORDER_MARK "\xEF\xBB\xBF"
#define BLANKS          " \t\v\f"
#define NEWLINES        "\r\n"
#define EXPORT          "export"

struct variable {
    char *name;
    char *value;
};

struct dotenv {
    unsigned references;
    void *variables; /* a tree of tsearch(3), by name */
};

struct parser {
    const char *at; /* everything before is understood */
    const char *end;
    const char *counted; /* up to here lines were counted */
    size_t line;
    struct dotenv *values;
    size_t work_bytes; /* copied into values and bad values */
    bool no_memory;
    size_t length;                             /* of expanded[] */
    char raw[DOTENV_VALUE_MAX_BYTES + 1];      /* a value without its quotes and escapes */
    char expanded[DOTENV_VALUE_MAX_BYTES + 1]; /* and with its references replaced */
};

/* --- the values ----------------------------------------------------------------------------------- */

static int compare_names(const void *left, const void *right)
{
    const struct variable *one = left, *other = right;

    return strcmp(one->name, other->name);
}

static void wipe(char *value)
{
    if (value != NULL)
        explicit_bzero(value, strlen(value));
    free(value);
}

static void variable_free(void *object)
{
    struct variable *variable = object;

    if (variable == NULL)
        return;
    free(variable->name);
    wipe(variable->value);
    free(variable);
}

const char *dotenv_get(const struct dotenv *values, const char *name)
{
    const struct variable wanted = {.name = (char *)name};
    struct variable *const *found = tfind(&wanted, &values->variables, compare_names);

    return found != NULL ? (*found)->value : NULL;
}

struct dotenv *dotenv_ref(struct dotenv *values)
{
    if (values != NULL)
        values->references++;
    return values;
}

void dotenv_unref(struct dotenv *values)
{
    if (values == NULL || --values->references > 0)
        return;
    tdestroy(values->variables, variable_free);
    free(values);
}

/* Takes both over. A later line with the same name replaces the value. False for lack of memory. */
static bool define(struct dotenv *values, char *name, char *value)
{
    struct variable *variable = malloc(sizeof *variable);
    struct variable **place;

    if (variable == NULL || name == NULL || value == NULL) {
        free(variable);
        free(name);
        wipe(value);
        return false;
    }
    *variable = (struct variable){.name = name, .value = value};
    place = tsearch(variable, &values->variables, compare_names);
    if (place == NULL) {
        variable_free(variable);
        return false;
    }
    if (*place != variable) {
        variable->value = (*place)->value;
        (*place)->value = value;
        variable_free(variable);
    }
    return true;
}

/* --- bytes ---------------------------------------------------------------------------------------- */

static bool is_one_of(char byte, const char *set)
{
    return byte != '\0' && strchr(set, byte) != NULL;
}

/* The byte ahead, NUL at the end of the text: a NUL in the text makes its line a bad one anyhow. */
static char peek(const struct parser *parser)
{
    return parser->at < parser->end ? *parser->at : '\0';
}

static void skip(struct parser *parser, const char *set)
{
    while (parser->at < parser->end && is_one_of(*parser->at, set))
        parser->at++;
}

static void skip_line(struct parser *parser)
{
    while (parser->at < parser->end && !is_one_of(*parser->at, NEWLINES))
        parser->at++;
}

/* The number of the line that `at` is in, which is not before where this was asked last. CR LF is one end of line. */
static size_t line_of(struct parser *parser, const char *at)
{
    for (; parser->counted < at; parser->counted++) {
        bool is_pair = parser->counted[0] == '\r' && parser->counted + 1 < parser->end && parser->counted[1] == '\n';

        if (is_one_of(*parser->counted, NEWLINES) && !is_pair)
            parser->line++;
    }
    return parser->line;
}

/* --- names and values ----------------------------------------------------------------------------- */

static void skip_export(struct parser *parser)
{
    const char *begin = parser->at;
    size_t length = strlen(EXPORT);

    if ((size_t)(parser->end - begin) <= length || memcmp(begin, EXPORT, length) != 0)
        return;
    parser->at += length;
    if (!is_one_of(peek(parser), BLANKS))
        parser->at = begin;
    skip(parser, BLANKS);
}

/* A name, which may be in single quotes; false when there is none. */
static bool read_name(struct parser *parser, const char **name, size_t *length)
{
    bool is_quoted = peek(parser) == '\'';
    const char *stops = is_quoted ? "'" NEWLINES : "=#" BLANKS NEWLINES;

    if (is_quoted)
        parser->at++;
    *name = parser->at;
    while (parser->at < parser->end && !is_one_of(*parser->at, stops))
        parser->at++;
    *length = (size_t)(parser->at - *name);
    if (*length == 0 || (is_quoted && peek(parser) != '\''))
        return false;
    if (is_quoted)
        parser->at++;
    return true;
}

/* Up to a comment, without the blanks at its end. */
static bool read_unquoted(struct parser *parser)
{
    const char *begin = parser->at;
    const char *end = begin;
    size_t length;

    skip_line(parser);
    while (end < parser->at && !(*end == '#' && is_one_of(end[-1], BLANKS)))
        end++;
    while (end > begin && is_one_of(end[-1], BLANKS))
        end--;
    length = (size_t)(end - begin);
    if (length > DOTENV_VALUE_MAX_BYTES)
        return false;
    memcpy(parser->raw, begin, length);
    parser->raw[length] = '\0';
    return true;
}

/* What an escape of one letter stands for; NUL when it is none and both bytes stand for themselves. */
static char escaped_byte(char quote, char letter)
{
    static const char letters[] = "\\'\"abfnrtv", bytes[] = "\\'\"\a\b\f\n\r\t\v";
    const char *found = letter != '\0' ? strchr(letters, letter) : NULL;

    if (found == NULL || (quote == '\'' && found > letters + 1))
        return '\0';
    return bytes[found - letters];
}

/* Copies what is between the quotes. Ends of lines become LF. */
static bool unquote(struct parser *parser, const char *at, const char *end, char quote)
{
    size_t length = 0;

    while (at < end && length < DOTENV_VALUE_MAX_BYTES) {
        char byte = *at++;
        char escaped = byte == '\\' && at < end ? escaped_byte(quote, *at) : '\0';

        if (escaped != '\0') {
            byte = escaped;
            at++;
        } else if (byte == '\r') {
            byte = '\n';
            at += at < end && *at == '\n' ? 1 : 0;
        }
        parser->raw[length++] = byte;
    }
    parser->raw[length] = '\0';
    return at == end;
}

/* A backslash always protects the byte after it. Without a closing quote nothing is read: the line alone is bad. */
static bool read_quoted(struct parser *parser)
{
    const char *begin = parser->at + 1;
    const char *end = begin;
    char quote = *parser->at;

    while (end < parser->end && *end != quote)
        end += *end == '\\' && end + 1 < parser->end ? 2 : 1;
    if (end == parser->end)
        return false;
    parser->at = end + 1;
    return unquote(parser, begin, end, quote);
}

/* --- references ----------------------------------------------------------------------------------- */

/* False when the value, or all of them together, would be too long: references must not blow up a small file. */
static bool append(struct parser *parser, const char *bytes, size_t length)
{
    if (length > DOTENV_VALUE_MAX_BYTES - parser->length || length > DOTENV_TOTAL_MAX_BYTES - parser->work_bytes)
        return false;
    memcpy(parser->expanded + parser->length, bytes, length);
    parser->length += length;
    parser->work_bytes += length;
    parser->expanded[parser->length] = '\0';
    return true;
}

/* What is at `at`, ${NAME}, ${NAME:-default} or neither, is appended; *after is behind it. */
static bool append_reference(struct parser *parser, char *at, char **after)
{
    char *name = at + strlen("${");
    char *name_end = name + strcspn(name, "}:");
    bool has_default = strncmp(name_end, ":-", 2) == 0;
    char *otherwise = has_default ? name_end + strlen(":-") : NULL;
    char *end = has_default ? otherwise + strcspn(otherwise, "}") : name_end;
    const char *value;

    *after = end;
    if (*end != '}')
        return append(parser, at, (size_t)(end - at));
    *after = end + 1;
    *name_end = '\0';
    *end = '\0';
    value = getenv(name);
    if (value == NULL)
        value = dotenv_get(parser->values, name);
    if (value == NULL)
        value = has_default ? otherwise : "";
    return append(parser, value, strlen(value));
}

/* raw[] to expanded[]. The values of references and defaults are not looked into again. */
static bool expand(struct parser *parser)
{
    char *at = parser->raw;

    parser->length = 0;
    parser->expanded[0] = '\0';
    for (;;) {
        char *reference = strstr(at, "${");

        if (reference == NULL)
            return append(parser, at, strlen(at));
        if (!append(parser, at, (size_t)(reference - at)) || !append_reference(parser, reference, &at))
            return false;
    }
}

/* --- lines ---------------------------------------------------------------------------------------- */

/* Blanks, a comment, the end of the line. */
static bool read_line_end(struct parser *parser)
{
    skip(parser, BLANKS);
    if (peek(parser) == '#')
        skip_line(parser);
    return parser->at == parser->end || is_one_of(*parser->at, NEWLINES);
}

static bool read_value(struct parser *parser)
{
    char quote = peek(parser);

    return quote == '\'' || quote == '"' ? read_quoted(parser) : read_unquoted(parser);
}

/* One line, or the lines of one value in quotes; false: a bad one. */
static bool read_statement(struct parser *parser)
{
    const char *begin = parser->at;
    const char *name;
    size_t length;
    bool has_value;

    skip_export(parser);
    if (peek(parser) == '#')
        return read_line_end(parser);
    if (!read_name(parser, &name, &length))
        return false;
    skip(parser, BLANKS);
    has_value = peek(parser) == '=';
    if (has_value) {
        parser->at++;
        skip(parser, BLANKS);
        if (!read_value(parser))
            return false;
    }
    if (!read_line_end(parser) || memchr(begin, '\0', (size_t)(parser->at - begin)) != NULL)
        return false;
    if (!has_value)
        return true;
    if (!expand(parser))
        return false;
    parser->no_memory = !define(parser->values, strndup(name, length), strdup(parser->expanded));
    return true;
}

static void parse(struct parser *parser, void (*bad_line)(size_t line, void *context), void *context)
{
    const char *begin;

    if (parser->end - parser->at >= 3 && memcmp(parser->at, BYTE_ORDER_MARK, 3) == 0)
        parser->at += 3;
    for (;;) {
        skip(parser, BLANKS NEWLINES);
        begin = parser->at;
        if (begin == parser->end || parser->no_memory)
            return;
        if (!read_statement(parser)) {
            skip_line(parser);
            bad_line(line_of(parser, begin), context);
        }
    }
}

struct dotenv *dotenv_parse(const char *text, size_t length, void (*bad_line)(size_t line, void *context),
                            void *context)
{
    struct parser *parser;
    struct dotenv *values;

    if (length > DOTENV_TEXT_MAX_BYTES) {
        errno = EFBIG;
        return NULL;
    }
    parser = calloc(1, sizeof *parser);
    values = calloc(1, sizeof *values);
    if (values != NULL)
        values->references = 1;
    if (parser != NULL && values != NULL) {
        parser->at = parser->counted = text;
        parser->end = text + length;
        parser->line = 1;
        parser->values = values;
        parse(parser, bad_line, context);
    }
    if (parser == NULL || values == NULL || parser->no_memory) {
        dotenv_unref(values);
        values = NULL;
    }
    if (parser != NULL)
        explicit_bzero(parser, sizeof *parser);
    free(parser);
    if (values == NULL)
        errno = ENOMEM;
    return values;
}
