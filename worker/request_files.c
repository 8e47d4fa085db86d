#include "worker/request_files.h"

#include "worker/field_errors.h"
#include "worker/memory_watch.h"
#include "worker/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PATH_MAX_SHOWN 200 /* code points of a caller's path in a message */

static const struct field_place place = {.in = "body", .field = "files"};

enum path_fault {
    PATH_OK,
    PATH_ABSOLUTE,
    PATH_INVALID,
    PATH_TRAVERSAL,
};

static bool is_absolute(const char *path)
{
    return *path == '/' || *path == '\\' ||
           (isalpha((unsigned char)path[0]) && path[1] == ':' && (path[2] == '/' || path[2] == '\\'));
}

/* Drops empty and `.` segments, resolves `..`; out has room for the path. */
static enum path_fault normalise(const char *path, size_t length, char *out)
{
    size_t used = 0;

    if (is_absolute(path))
        return PATH_ABSOLUTE;
    if (memchr(path, '\0', length) != NULL)
        return PATH_INVALID;
    while (*path != '\0') {
        size_t segment = strcspn(path, "/");
        bool parent = segment == 2 && path[0] == '.' && path[1] == '.';

        if (parent && used == 0)
            return PATH_TRAVERSAL;
        if (parent) {
            while (used > 0 && out[used - 1] != '/')
                used--;
            used -= used > 0;
        } else if (segment > 0 && !(segment == 1 && path[0] == '.')) {
            if (used > 0)
                out[used++] = '/';
            memcpy(out + used, path, segment);
            used += segment;
        }
        path += segment;
        path += *path == '/';
    }
    out[used] = '\0';
    return used > 0 ? PATH_OK : PATH_TRAVERSAL;
}

static void add_path_error(json_t *errors, enum path_fault fault, const char *path, size_t length)
{
    static const char *const texts[] = {
        [PATH_ABSOLUTE] = "Absolute paths are not allowed: ",
        [PATH_INVALID] = "Invalid file path: ",
        [PATH_TRAVERSAL] = "Path traversal not allowed: ",
    };
    size_t shown = utf8_prefix(path, length, PATH_MAX_SHOWN);
    size_t prefix = strlen(texts[fault]);
    char *text = malloc(prefix + shown);

    if (text == NULL) {
        memory_note_refusal();
        return;
    }
    memcpy(text, texts[fault], prefix);
    memcpy(text + prefix, path, shown); /* may hold NUL */
    field_error_add_value(errors, place, text, prefix + shown);
    free(text);
}

/* n with a comma between thousands. */
static void format_thousands(size_t number, char *out, size_t size)
{
    char digits[32];
    int length = snprintf(digits, sizeof digits, "%zu", number);
    size_t used = 0;

    for (int i = 0; i < length && used + 2 < size; i++) {
        if (i > 0 && (length - i) % 3 == 0)
            out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = '\0';
}

bool request_files_check_count(size_t count, json_t *errors)
{
    char text[96];

    if (count <= REQUEST_FILES_MAX_COUNT)
        return true;
    snprintf(text, sizeof text, "Too many files: %zu (max %d)", count, REQUEST_FILES_MAX_COUNT);
    field_error_add_value(errors, place, text, strlen(text));
    return false;
}

static bool check_total(json_t *files, json_t *errors)
{
    const char *path;
    json_t *content;
    size_t total = 0;
    char number[48], text[96];

    json_object_foreach(files, path, content) total += json_string_length(content);
    if (total <= REQUEST_FILES_MAX_BYTES)
        return true;
    format_thousands(total, number, sizeof number);
    snprintf(text, sizeof text, "Total file size %s bytes exceeds 10MB limit", number);
    field_error_add_value(errors, place, text, strlen(text));
    return false;
}

/* One file to its normalised path. */
static bool place_file(json_t *placed, const char *path, size_t length, json_t *content, json_t *errors)
{
    char *normalised = malloc(length + 1);
    enum path_fault fault;

    if (normalised == NULL) {
        memory_note_refusal();
        return false;
    }
    fault = normalise(path, length, normalised);
    if (fault == PATH_OK)
        json_object_set(placed, normalised, content);
    else
        add_path_error(errors, fault, path, length);
    free(normalised);
    return fault == PATH_OK;
}

json_t *request_files_check(json_t *files, json_t *errors)
{
    json_t *placed = json_object();
    const char *path;
    size_t length;
    json_t *content;
    bool valid = check_total(files, errors);

    json_object_keylen_foreach(files, path, length, content)
    {
        if (!valid)
            break;
        valid = place_file(placed, path, length, content, errors);
    }
    if (valid)
        return placed;
    json_decref(placed);
    return NULL;
}
