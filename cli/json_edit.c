#include "cli/json_edit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_UNIT "  "
#define BLANKS       " \t\r\n"

/*
 * A text that jansson has taken as JSON, so that the scanner below may trust it. Positions are offsets.
 */
struct document {
    const char *text;
    const char *newline; /* as the document has it */
    char *unit;          /* of indentation; NULL: all of it stands in one line */
};

/* An object in it. */
struct object {
    size_t open; /* of its brace */
    size_t close;
    size_t first_key;  /* 0: it is empty */
    size_t last_value; /* the end of it */
};

struct member {
    size_t start; /* of the value */
    size_t end;
};

/* --- scanning ----------------------------------------------------------------------------------------------- */

static size_t skip_blanks(const char *text, size_t at)
{
    return at + strspn(text + at, BLANKS);
}

static size_t skip_string(const char *text, size_t at)
{
    for (at++; text[at] != '"'; at++) {
        if (text[at] == '\\')
            at++;
    }
    return at + 1;
}

static size_t skip_value(const char *text, size_t at)
{
    size_t depth = 0;

    do {
        if (text[at] == '"') {
            at = skip_string(text, at);
        } else if (text[at] == '{' || text[at] == '[') {
            depth++;
            at++;
        } else if (text[at] == '}' || text[at] == ']') {
            depth--;
            at++;
        } else if (depth == 0) {
            return at + strcspn(text + at, ",]}" BLANKS);
        } else {
            at++;
        }
    } while (depth > 0);
    return at;
}

/* Whether the string at this place is the key. */
static bool is_key(const char *text, size_t start, size_t end, const char *key)
{
    json_t *string = json_loadb(text + start, end - start, JSON_DECODE_ANY, NULL);
    bool same = string != NULL && strcmp(json_string_value(string), key) == 0;

    json_decref(string);
    return same;
}

/* Reads the object at a place. True with *found when it has the key; key may be NULL. */
static bool read_object(const char *text, size_t open, const char *key, struct object *object, struct member *found)
{
    size_t at = skip_blanks(text, open + 1);
    bool has_key = false;

    *object = (struct object){.open = open};
    while (text[at] != '}') {
        size_t key_start = at, key_end = skip_string(text, at), value;

        if (object->first_key == 0)
            object->first_key = key_start;
        value = skip_blanks(text, skip_blanks(text, key_end) + 1);
        object->last_value = skip_value(text, value);
        if (key != NULL && is_key(text, key_start, key_end, key)) {
            *found = (struct member){value, object->last_value};
            has_key = true;
        }
        at = skip_blanks(text, object->last_value);
        if (text[at] == ',')
            at = skip_blanks(text, at + 1);
    }
    object->close = at;
    return has_key;
}

/* --- layout ------------------------------------------------------------------------------------------------- */

/* The blanks at the beginning of the line of a place; their length in *length. */
static const char *line_indent(const char *text, size_t at, size_t *length)
{
    while (at > 0 && text[at - 1] != '\n')
        at--;
    *length = strspn(text + at, " \t");
    return text + at;
}

/* Whether a place is the first thing in its line. */
static bool begins_line(const char *text, size_t at)
{
    while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == '\t'))
        at--;
    return at > 0 && text[at - 1] == '\n';
}

/* How the document is laid out. False for lack of memory. */
static bool read_layout(struct document *document, const struct object *root)
{
    const char *text = document->text, *indent;
    size_t length;

    document->newline = strstr(text, "\r\n") != NULL ? "\r\n" : "\n";
    document->unit = NULL;
    if (root->first_key == 0) {
        document->unit = strdup(DEFAULT_UNIT);
        return document->unit != NULL;
    }
    if (!begins_line(text, root->first_key))
        return true;
    indent = line_indent(text, root->first_key, &length);
    document->unit = length > 0 ? strndup(indent, length) : strdup(DEFAULT_UNIT);
    return document->unit != NULL;
}

static void put_indent(FILE *out, const struct document *document, const char *base, size_t base_length, size_t depth)
{
    fwrite(base, 1, base_length, out);
    for (size_t i = 0; i < depth; i++)
        fputs(document->unit, out);
}

/* A value whose first line stands at an indentation. */
static void put_value(FILE *out, const struct document *document, const char *base, size_t base_length,
                      const json_t *value)
{
    char *dumped = json_dumps(value, JSON_ENCODE_ANY | (document->unit != NULL ? JSON_INDENT(1) : 0));
    char *rest = dumped, *line;

    /* One blank is one level; a string holds no line end. */
    for (bool first = true; (line = strsep(&rest, "\n")) != NULL; first = false) {
        size_t depth = strspn(line, " ");

        if (!first) {
            fputs(document->newline, out);
            put_indent(out, document, base, base_length, depth);
        }
        fputs(line + (first ? 0 : depth), out);
    }
    free(dumped);
}

static void put_key(FILE *out, const char *name)
{
    json_t *string = json_string(name);
    char *dumped = json_dumps(string, JSON_ENCODE_ANY);

    fprintf(out, "%s: ", dumped != NULL ? dumped : "");
    free(dumped);
    json_decref(string);
}

/* --- edits -------------------------------------------------------------------------------------------------- */

/* The document with another value of a member. */
static void put_replaced(FILE *out, const struct document *document, const struct member *member, const json_t *value)
{
    size_t length;
    const char *base = line_indent(document->text, member->start, &length);

    fwrite(document->text, 1, member->start, out);
    put_value(out, document, base, length, value);
    fputs(document->text + member->end, out);
}

/* The document with one more member at the end of an object that is not empty. */
static void put_appended(FILE *out, const struct document *document, const struct object *object, const char *name,
                         const json_t *value)
{
    const char *text = document->text;
    size_t length;
    const char *base = line_indent(text, object->first_key, &length);

    fwrite(text, 1, object->last_value, out);
    fputc(',', out);
    if (document->unit != NULL && begins_line(text, object->first_key)) {
        fputs(document->newline, out);
        put_indent(out, document, base, length, 0);
    } else {
        fputc(' ', out);
    }
    put_key(out, name);
    put_value(out, document, base, length, value);
    fputs(text + object->last_value, out);
}

/* Likewise of an empty one. */
static void put_first(FILE *out, const struct document *document, const struct object *object, const char *name,
                      const json_t *value)
{
    const char *text = document->text;
    size_t length;
    const char *base = line_indent(text, object->open, &length);
    char inner[256];

    fwrite(text, 1, object->open + 1, out);
    if (document->unit != NULL) {
        snprintf(inner, sizeof inner, "%.*s%s", (int)length, base, document->unit);
        fprintf(out, "%s%s", document->newline, inner);
        put_key(out, name);
        put_value(out, document, inner, strlen(inner), value);
        fputs(document->newline, out);
        put_indent(out, document, base, length, 0);
    } else {
        put_key(out, name);
        put_value(out, document, base, length, value);
    }
    fputs(text + object->close, out);
}

static void put_member(FILE *out, const struct document *document, const struct object *object, const char *name,
                       const json_t *value)
{
    if (object->first_key != 0)
        put_appended(out, document, object, name, value);
    else
        put_first(out, document, object, name, value);
}

/* The edit itself, of a text whose section is an object or missing. */
static enum json_edit_result edit(FILE *out, struct document *document, const char *section, const char *name,
                                  const json_t *value, bool may_replace)
{
    const char *text = document->text;
    struct object root, within;
    struct member place, old;
    bool has_section = read_object(text, skip_blanks(text, 0), section, &root, &place);

    if (!read_layout(document, &root))
        return JSON_EDIT_FAILED;
    if (!has_section) {
        json_t *members = json_pack("{s:O}", name, value);

        put_member(out, document, &root, section, members);
        json_decref(members);
    } else if (!read_object(text, place.start, name, &within, &old)) {
        put_member(out, document, &within, name, value);
    } else if (may_replace) {
        put_replaced(out, document, &old, value);
    } else {
        return JSON_EDIT_EXISTS;
    }
    return JSON_EDIT_DONE;
}

/* What the edited text has to mean. NULL for lack of memory. */
static json_t *expectation(const json_t *root, const char *section, const char *name, const json_t *value)
{
    json_t *expected = json_deep_copy(root), *members = json_object_get(expected, section);

    if (members == NULL) {
        members = json_object();
        json_object_set_new(expected, section, members);
    }
    json_object_set_new(members, name, json_deep_copy(value));
    return expected;
}

static enum json_edit_result fail(char reason[static JSON_EDIT_REASON_BYTES], const char *why)
{
    snprintf(reason, JSON_EDIT_REASON_BYTES, "%s", why);
    return JSON_EDIT_FAILED;
}

static enum json_edit_result edit_checked(const char *text, const json_t *root, const char *section, const char *name,
                                          const json_t *value, bool may_replace, char **out,
                                          char reason[static JSON_EDIT_REASON_BYTES])
{
    struct document document = {.text = text};
    size_t size;
    FILE *stream = open_memstream(out, &size);
    enum json_edit_result result =
        stream != NULL ? edit(stream, &document, section, name, value, may_replace) : JSON_EDIT_FAILED;
    json_t *expected, *edited;

    free(document.unit);
    if (stream == NULL || fclose(stream) != 0 || result == JSON_EDIT_FAILED)
        return fail(reason, strerror(ENOMEM));
    if (result == JSON_EDIT_EXISTS)
        return result;
    expected = expectation(root, section, name, value);
    edited = json_loadb(*out, size, JSON_ALLOW_NUL, NULL);
    if (edited == NULL || !json_equal(edited, expected))
        result = fail(reason, "the edit would change more than it should: nothing is written");
    json_decref(expected);
    json_decref(edited);
    return result;
}

enum json_edit_result json_edit_put(const char *text, size_t length, const char *section, const char *name,
                                    const json_t *value, bool may_replace, char **out,
                                    char reason[static JSON_EDIT_REASON_BYTES])
{
    json_error_t error;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    const json_t *members = json_object_get(root, section);
    enum json_edit_result result;

    *out = NULL;
    if (root == NULL) {
        snprintf(reason, JSON_EDIT_REASON_BYTES, "line %d: %s", error.line, error.text);
        return JSON_EDIT_FAILED;
    }
    if (!json_is_object(root))
        result = fail(reason, "it is no JSON object");
    else if (members != NULL && !json_is_object(members))
        result = fail(reason, "mcp_servers is no JSON object");
    else
        result = edit_checked(text, root, section, name, value, may_replace, out, reason);
    if (result != JSON_EDIT_DONE) {
        free(*out);
        *out = NULL;
    }
    json_decref(root);
    return result;
}
