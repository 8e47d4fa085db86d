#include "worker/query_request.h"

#include "common/log.h"
#include "worker/utf8.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define NESTING_MAX      400
#define PATH_MAX_SHOWN   200                /* code points of a caller's path in a message */
#define SAFE_INTEGER_MAX 9007199254740991LL /* 2^53 - 1 */
#define TIMEOUT_MIN_S    5
#define TIMEOUT_MAX_S    3600

/* --- the error list --------------------------------------------------------------------------------- */

/* {"type","loc":["body",<field>],"msg"[,"ctx"]}; field NULL: the body itself. ctx is taken over. */
static void add_error(json_t *errors, const char *type, const char *field, const char *message, json_t *ctx)
{
    json_t *error = json_object();
    json_t *location = field != NULL ? json_pack("[s,s]", "body", field) : json_pack("[s]", "body");

    json_object_set_new(error, "type", json_string(type));
    json_object_set_new(error, "loc", location);
    json_object_set_new(error, "msg", json_string(message));
    if (ctx != NULL)
        json_object_set_new(error, "ctx", ctx);
    json_array_append_new(errors, error);
}

static void add_value_error(json_t *errors, const char *field, const char *text)
{
    char *message;

    if (asprintf(&message, "Value error, %s", text) < 0)
        return;
    add_error(errors, "value_error", field, message, json_pack("{s:{}}", "error"));
    free(message);
}

json_t *query_value_error(const char *text)
{
    json_t *errors = json_array();

    add_value_error(errors, NULL, text);
    return errors;
}

/* A wrong element inside a field: ["body",<field>,<key>]. */
static void add_element_error(json_t *errors, const char *field, const char *key)
{
    json_t *error = json_pack("{s:s, s:[s,s,s], s:s}", "type", "string_type", "loc", "body", field, key, "msg",
                              "Input should be a valid string");

    json_array_append_new(errors, error);
}

/* --- text ------------------------------------------------------------------------------------------- */

/* Deepest nesting of brackets outside of strings. */
static size_t nesting_depth(const char *text, size_t length)
{
    size_t depth = 0, deepest = 0;
    bool in_string = false;

    for (size_t i = 0; i < length; i++) {
        if (in_string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                in_string = false;
        } else if (text[i] == '"') {
            in_string = true;
        } else if (text[i] == '{' || text[i] == '[') {
            depth++;
            deepest = depth > deepest ? depth : deepest;
        } else if ((text[i] == '}' || text[i] == ']') && depth > 0) {
            depth--;
        }
    }
    return deepest;
}

/* --- field types ------------------------------------------------------------------------------------ */

static json_t *field_of(const struct query_request *request, const char *name)
{
    json_t *value = json_object_get(request->root, name);

    return json_is_null(value) ? NULL : value;
}

/* A string or NULL; strings are never coerced. */
static json_t *string_field(const struct query_request *request, const char *name, json_t *errors)
{
    json_t *value = field_of(request, name);

    if (value == NULL || json_is_string(value))
        return value;
    add_error(errors, "string_type", name, "Input should be a valid string", NULL);
    return NULL;
}

enum integer_text {
    INTEGER_OK,
    INTEGER_UNPARSABLE,
    INTEGER_FRACTION,
};

/* Digits with single `_` between them, as in " 6_0 ", "+60", "60.0"; the digits go to out. */
static enum integer_text clean_digits(const char *text, char *out, size_t size)
{
    size_t used = 0;
    bool digit_before = false;

    while (isspace((unsigned char)*text))
        text++;
    if (*text == '+' || *text == '-') {
        if (*text == '-')
            out[used++] = '-';
        text++;
    }
    for (; isdigit((unsigned char)*text) || (*text == '_' && digit_before && isdigit((unsigned char)text[1])); text++) {
        digit_before = *text != '_';
        if (digit_before && used < size - 1)
            out[used++] = *text;
    }
    out[used] = '\0';
    if (!digit_before)
        return INTEGER_UNPARSABLE;
    if (*text == '.') {
        text++;
        while (*text == '0')
            text++;
        if (isdigit((unsigned char)*text))
            return INTEGER_FRACTION;
    }
    while (isspace((unsigned char)*text))
        text++;
    return *text == '\0' ? INTEGER_OK : INTEGER_UNPARSABLE;
}

/* Coerces as http-api.md 3.3 does; beyond 64 bits the value saturates, which range checks then refuse. */
static bool coerce_integer(json_t *value, const char *name, json_t *errors, int64_t *number)
{
    char digits[32];

    if (json_is_integer(value)) {
        *number = json_integer_value(value);
    } else if (json_is_boolean(value)) {
        *number = json_is_true(value);
    } else if (json_is_real(value)) {
        double real = json_real_value(value);

        /* Beyond 2^63 every double is whole. */
        if (real > -9.2e18 && real < 9.2e18 && (double)(int64_t)real != real) {
            add_error(errors, "int_from_float", name,
                      "Input should be a valid integer, got a number with a fractional part", NULL);
            return false;
        }
        *number = real >= 9.2e18 ? INT64_MAX : real <= -9.2e18 ? INT64_MIN : (int64_t)real;
    } else if (json_is_string(value)) {
        if (clean_digits(json_string_value(value), digits, sizeof digits) != INTEGER_OK) {
            add_error(errors, "int_parsing", name,
                      "Input should be a valid integer, unable to parse string as an integer", NULL);
            return false;
        }
        *number = strtoll(digits, NULL, 10);
    } else {
        add_error(errors, "int_type", name, "Input should be a valid integer", NULL);
        return false;
    }
    return true;
}

/* 0 when absent or wrong. */
static int64_t integer_field(const struct query_request *request, const char *name, int64_t min, int64_t max,
                             json_t *errors)
{
    json_t *value = field_of(request, name);
    int64_t number = 0;
    char message[96];

    if (value == NULL || !coerce_integer(value, name, errors, &number))
        return 0;
    if (number < min) {
        snprintf(message, sizeof message, "Input should be greater than or equal to %lld", (long long)min);
        add_error(errors, "greater_than_equal", name, message, json_pack("{s:I}", "ge", (json_int_t)min));
        return 0;
    }
    if (number > max) {
        snprintf(message, sizeof message, "Input should be less than or equal to %lld", (long long)max);
        add_error(errors, "less_than_equal", name, message, json_pack("{s:I}", "le", (json_int_t)max));
        return 0;
    }
    return number;
}

/* --- the fields ------------------------------------------------------------------------------------- */

static void take_prompt(struct query_request *request, json_t *errors)
{
    json_t *value = json_object_get(request->root, "prompt");
    size_t code_points;

    if (value == NULL) {
        add_error(errors, "missing", "prompt", "Field required", NULL);
        return;
    }
    if (!json_is_string(value)) {
        add_error(errors, "string_type", "prompt", "Input should be a valid string", NULL);
        return;
    }
    request->prompt = json_string_value(value);
    request->prompt_bytes = json_string_length(value);
    code_points = utf8_count_code_points(request->prompt, request->prompt_bytes);
    if (code_points == 0)
        add_error(errors, "string_too_short", "prompt", "String should have at least 1 character",
                  json_pack("{s:i}", "min_length", 1));
    else if (code_points > QUERY_PROMPT_MAX_CODE_POINTS)
        add_error(errors, "string_too_long", "prompt", "String should have at most 1000000 characters",
                  json_pack("{s:i}", "max_length", QUERY_PROMPT_MAX_CODE_POINTS));
}

/* A key: "" counts as absent; the key itself never appears in an error. */
static const char *take_key(const struct query_request *request, const char *name, json_t *errors)
{
    json_t *value = string_field(request, name, errors);
    size_t length = json_string_length(value);
    const char *key = json_string_value(value);
    char message[64];
    bool valid = length <= QUERY_KEY_MAX_BYTES;

    if (length == 0)
        return NULL;
    for (size_t i = 0; i < length; i++)
        valid &= key[i] >= 0x21 && key[i] <= 0x7e;
    if (valid)
        return key;
    snprintf(message, sizeof message, "%s contains invalid characters", name);
    add_value_error(errors, name, message);
    return NULL;
}

static void take_model(struct query_request *request, json_t *errors)
{
    json_t *value = string_field(request, "model", errors);

    if (value == NULL)
        return;
    if (json_string_length(value) == 0)
        add_error(errors, "string_too_short", "model", "String should have at least 1 character",
                  json_pack("{s:i}", "min_length", 1));
    else
        request->model = json_string_value(value);
}

/* --- files ------------------------------------------------------------------------------------------ */

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

/* Drops empty and `.` segments, resolves `..` (3.4); out has room for the path. */
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
        [PATH_ABSOLUTE] = "Absolute paths are not allowed",
        [PATH_INVALID] = "Invalid file path",
        [PATH_TRAVERSAL] = "Path traversal not allowed",
    };
    json_t *error;
    json_t *message;
    size_t shown = utf8_prefix(path, length, PATH_MAX_SHOWN);
    size_t prefix = strlen("Value error, ") + strlen(texts[fault]) + strlen(": ");
    char *text = malloc(prefix + shown + 1);

    if (text == NULL)
        return;
    sprintf(text, "Value error, %s: ", texts[fault]);
    memcpy(text + prefix, path, shown); /* may hold NUL */
    message = json_stringn(text, prefix + shown);
    free(text);
    error = json_pack("{s:s, s:[s,s], s:o, s:{s:{}}}", "type", "value_error", "loc", "body", "files", "msg", message,
                      "ctx", "error");
    json_array_append_new(errors, error);
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

static bool check_file_types(json_t *files, json_t *errors)
{
    const char *path;
    json_t *content;
    bool valid = true;

    json_object_foreach(files, path, content)
    {
        if (!json_is_string(content)) {
            add_element_error(errors, "files", path);
            valid = false;
        }
    }
    return valid;
}

static bool check_file_sizes(json_t *files, json_t *errors)
{
    const char *path;
    json_t *content;
    size_t total = 0;
    char number[32], message[96];

    if (json_object_size(files) > QUERY_FILES_MAX_COUNT) {
        snprintf(message, sizeof message, "Too many files: %zu (max %d)", json_object_size(files),
                 QUERY_FILES_MAX_COUNT);
        add_value_error(errors, "files", message);
        return false;
    }
    json_object_foreach(files, path, content) total += json_string_length(content);
    if (total <= QUERY_FILES_MAX_BYTES)
        return true;
    format_thousands(total, number, sizeof number);
    snprintf(message, sizeof message, "Total file size %s bytes exceeds 10MB limit", number);
    add_value_error(errors, "files", message);
    return false;
}

static void take_files(struct query_request *request, json_t *errors)
{
    json_t *files = field_of(request, "files");
    const char *path;
    size_t length;
    json_t *content;

    if (files == NULL)
        return;
    if (!json_is_object(files)) {
        add_error(errors, "dict_type", "files", "Input should be a valid dictionary", NULL);
        return;
    }
    if (!check_file_types(files, errors) || !check_file_sizes(files, errors))
        return;
    json_object_keylen_foreach(files, path, length, content)
    {
        char *normalised = malloc(length + 1);
        enum path_fault fault = normalised != NULL ? normalise(path, length, normalised) : PATH_INVALID;

        if (fault == PATH_OK)
            json_object_set(request->files, normalised, content);
        else
            add_path_error(errors, fault, path, length);
        free(normalised);
        if (fault != PATH_OK)
            return;
    }
}

/* --- the body --------------------------------------------------------------------------------------- */

/* In the order of http-api.md 3.2, which is the order of the error list. */
static void take_fields(struct query_request *request, json_t *errors)
{
    take_prompt(request, errors);
    request->anthropic_api_key = take_key(request, "anthropic_api_key", errors);
    request->e2b_api_key = take_key(request, "e2b_api_key", errors);
    request->openrouter_api_key = take_key(request, "openrouter_api_key", errors);
    take_model(request, errors);
    request->max_turns = integer_field(request, "max_turns", 1, SAFE_INTEGER_MAX, errors);
    request->timeout_s = integer_field(request, "timeout", TIMEOUT_MIN_S, TIMEOUT_MAX_S, errors);
    take_files(request, errors);
}

static void add_syntax_error(json_t *errors, const json_error_t *fault)
{
    json_t *error = json_pack("{s:s, s:[s,i], s:s, s:{s:s}}", "type", "json_invalid", "loc", "body",
                              fault->position > 0 ? fault->position - 1 : 0, "msg", "JSON decode error", "ctx", "error",
                              "Invalid JSON");

    json_array_append_new(errors, error);
}

static void take_root(struct query_request *request, const char *body, size_t length, json_t *errors)
{
    json_error_t fault = {.position = 0};

    if (length > 0)
        request->root = json_loadb(body, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &fault);
    if (length == 0 || json_is_null(request->root))
        add_error(errors, "missing", NULL, "Field required", NULL);
    else if (request->root == NULL)
        add_syntax_error(errors, &fault);
    else if (!json_is_object(request->root))
        add_error(errors, "model_attributes_type", NULL,
                  "Input should be a valid dictionary or object to extract fields from", NULL);
    else
        take_fields(request, errors);
}

enum query_result query_request_parse(const char *body, size_t length, struct query_request *request, json_t **errors)
{
    static const char bom[] = "\xef\xbb\xbf";

    *request = (struct query_request){.files = json_object()};
    *errors = json_array();
    if (request->files == NULL || *errors == NULL)
        return QUERY_NO_MEMORY;
    if (length >= 3 && memcmp(body, bom, 3) == 0) {
        body += 3;
        length -= 3;
    }
    if (!utf8_is_valid(body, length) || nesting_depth(body, length) > NESTING_MAX) {
        json_decref(*errors);
        *errors = NULL;
        return QUERY_BAD_TEXT;
    }
    take_root(request, body, length, *errors);
    if (json_array_size(*errors) > 0)
        return QUERY_BAD_FIELDS;
    json_decref(*errors);
    *errors = NULL;
    return QUERY_OK;
}

void query_request_release(struct query_request *request)
{
    json_decref(request->root);
    json_decref(request->files);
    *request = (struct query_request){0};
}
