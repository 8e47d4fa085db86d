#include "worker/query_request.h"

#include "worker/field_errors.h"
#include "worker/json_text.h"
#include "worker/memory_watch.h"
#include "worker/request_files.h"
#include "worker/utf8.h"

#include <stdlib.h>
#include <string.h>

#define NAME_MAX_SHOWN   100                /* code points of a caller's name in a message */
#define KEY_MAX_SHOWN    200                /* code points of a caller's key in the place of a fault */
#define SAFE_INTEGER_MAX 9007199254740991LL /* 2^53 - 1 */
#define TIMEOUT_MIN_S    5
#define TIMEOUT_MAX_S    3600
#define NO_BUDGET        (-1.0)

struct field;

/* One field on its way into the request. */
struct taking {
    struct query_request *request;
    json_t *errors;
    const struct field *field;
    struct json_text value; /* neither absent nor null, but for the prompt */
};

struct field {
    const char *name;
    void (*take)(struct taking *taking);
    size_t offset; /* of what it fills in struct query_request */
    int64_t min;
    int64_t max;
    const char *noun; /* of the names that are its keys */
};

static void *target(const struct taking *taking)
{
    return (char *)taking->request + taking->field->offset;
}

static struct field_place place_of(const struct taking *taking)
{
    return (struct field_place){.in = "body", .field = taking->field->name};
}

/* --- texts --------------------------------------------------------------------------------------------- */

/* NULL after an error. */
static json_t *read_string(struct taking *taking)
{
    if (json_text_type(taking->value) == JSON_TEXT_STRING)
        return json_text_string(taking->value);
    field_error_add_string_type(taking->errors, place_of(taking));
    return NULL;
}

static void take_text(struct taking *taking)
{
    *(json_t **)target(taking) = read_string(taking);
}

static void take_prompt(struct taking *taking)
{
    json_t *prompt;
    size_t code_points;

    if (taking->value.start == NULL) {
        field_error_add(taking->errors, place_of(taking), "missing", "Field required", NULL);
        return;
    }
    prompt = read_string(taking);
    taking->request->prompt = prompt;
    if (prompt == NULL)
        return;
    code_points = utf8_count_code_points(json_string_value(prompt), json_string_length(prompt));
    if (code_points == 0)
        field_error_add_too_short(taking->errors, place_of(taking));
    else if (code_points > QUERY_PROMPT_MAX_CODE_POINTS)
        field_error_add_too_long(taking->errors, place_of(taking), QUERY_PROMPT_MAX_CODE_POINTS);
}

static void take_model(struct taking *taking)
{
    take_text(taking);
    if (taking->request->model != NULL && json_string_length(taking->request->model) == 0)
        field_error_add_too_short(taking->errors, place_of(taking));
}

/* A key: "" counts as absent; the key itself never appears in an error. */
static void take_key(struct taking *taking)
{
    json_t *string = read_string(taking);
    const char *key = json_string_value(string);
    size_t length = json_string_length(string);
    bool valid = length <= QUERY_KEY_MAX_BYTES;
    char text[64];

    for (size_t i = 0; i < length; i++)
        valid &= key[i] >= 0x21 && key[i] <= 0x7e;
    if (!valid) {
        snprintf(text, sizeof text, "%s contains invalid characters", taking->field->name);
        field_error_add_value(taking->errors, place_of(taking), text, strlen(text));
    } else if (length > 0 && (*(char **)target(taking) = strdup(key)) == NULL) {
        memory_note_refusal();
    }
    json_decref(string);
}

/* --- numbers ------------------------------------------------------------------------------------------- */

static void take_integer(struct taking *taking)
{
    int64_t number;
    enum coerced result = coerce_integer(taking->value, &number);

    if (result != COERCED)
        field_error_add_integer(taking->errors, place_of(taking), result);
    else if (field_error_check_range(taking->errors, place_of(taking), number, taking->field->min, taking->field->max))
        *(int64_t *)target(taking) = number;
}

static void take_budget(struct taking *taking)
{
    double number;
    enum coerced result = coerce_number(taking->value, &number);

    if (result != COERCED)
        field_error_add_number(taking->errors, place_of(taking), result);
    else if (number < 0)
        field_error_add(taking->errors, place_of(taking), "greater_than_equal",
                        "Input should be greater than or equal to 0", json_pack("{s:f}", "ge", 0.0));
    else
        taking->request->max_budget_usd = number;
}

static void take_flag(struct taking *taking)
{
    bool flag;
    enum coerced result = coerce_bool(taking->value, &flag);

    if (result != COERCED)
        field_error_add_bool(taking->errors, place_of(taking), result);
    else
        *(enum query_flag *)target(taking) = flag ? QUERY_FLAG_TRUE : QUERY_FLAG_FALSE;
}

/* --- lists and objects --------------------------------------------------------------------------------- */

static void take_strings(struct taking *taking)
{
    struct json_text_cursor cursor;
    struct json_text element;
    json_t *list;

    if (json_text_type(taking->value) != JSON_TEXT_ARRAY) {
        field_error_add_list_type(taking->errors, place_of(taking));
        return;
    }
    list = json_array();
    cursor = json_text_enter(taking->value);
    for (json_int_t i = 0; !field_errors_are_full(taking->errors) && json_text_next_element(&cursor, &element); i++) {
        struct field_place place = place_of(taking);

        if (json_text_type(element) == JSON_TEXT_STRING) {
            json_array_append_new(list, json_text_string(element));
            continue;
        }
        place.element = json_integer(i);
        field_error_add_string_type(taking->errors, place);
        json_decref(place.element);
    }
    *(json_t **)target(taking) = list;
}

/* A list of names that others are looked up in: both may be long. */
static void take_names(struct taking *taking)
{
    json_t *list, *names, *item;
    size_t i;

    take_strings(taking);
    list = *(json_t **)target(taking);
    if (list == NULL)
        return;
    names = json_object();
    json_array_foreach(list, i, item)
        json_object_setn_new(names, json_string_value(item), json_string_length(item), json_null());
    json_decref(list);
    *(json_t **)target(taking) = names;
}

static void take_object(struct taking *taking)
{
    if (json_text_type(taking->value) == JSON_TEXT_OBJECT)
        *(json_t **)target(taking) = json_text_verbatim(NULL, taking->value, NULL);
    else
        field_error_add_dict_type(taking->errors, place_of(taking));
}

/* The members of an object while they are judged; of a repeated key only the last is. */
static json_t *read_members(struct taking *taking)
{
    if (json_text_type(taking->value) == JSON_TEXT_OBJECT)
        return json_text_members(taking->value, json_text_verbatim, NULL);
    field_error_add_dict_type(taking->errors, place_of(taking));
    return NULL;
}

/* Where a member stands, its key cut to what may be shown. */
static struct field_place member_place(const struct taking *taking, const char *key, size_t length)
{
    struct field_place place = place_of(taking);

    place.element = json_stringn(key, utf8_prefix(key, length, KEY_MAX_SHOWN));
    return place;
}

/* True when all members have the type; else an error for each that has not. */
static bool check_member_types(struct taking *taking, json_t *members, enum json_text_type type)
{
    const char *key;
    size_t length;
    json_t *value;
    bool valid = true;

    json_object_keylen_foreach(members, key, length, value)
    {
        struct field_place place;

        if (json_text_type(json_text_of(value)) == type)
            continue;
        if (field_errors_are_full(taking->errors))
            return false;
        place = member_place(taking, key, length);
        if (type == JSON_TEXT_STRING)
            field_error_add_string_type(taking->errors, place);
        else
            field_error_add_dict_type(taking->errors, place);
        json_decref(place.element);
        valid = false;
    }
    return valid;
}

/* The decoded strings of members that are strings. */
static json_t *decode_members(json_t *members)
{
    json_t *decoded = json_object();
    const char *key;
    size_t length;
    json_t *value;

    json_object_keylen_foreach(members, key, length, value)
        json_object_setn_new(decoded, key, length, json_text_string(json_text_of(value)));
    return decoded;
}

static bool is_name(const char *name, size_t length)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

    return length > 0 && strspn(name, allowed) == length;
}

static void add_name_error(struct taking *taking, const char *name, size_t length)
{
    const char *noun = taking->field->noun;
    size_t shown = utf8_prefix(name, length, NAME_MAX_SHOWN);
    size_t size = shown + strlen(noun) + 64;
    char *text = malloc(size);
    size_t used;

    if (text == NULL) {
        memory_note_refusal();
        return;
    }
    used = (size_t)snprintf(text, size, "Invalid %s name '", noun);
    memcpy(text + used, name, shown); /* may hold NUL */
    used += shown;
    used += (size_t)snprintf(text + used, size - used, "': must match [a-zA-Z0-9_-]+");
    field_error_add_value(taking->errors, place_of(taking), text, used);
    free(text);
}

/* The first bad name is the one reported. */
static bool check_names(struct taking *taking, json_t *members)
{
    const char *name;
    size_t length;
    json_t *value;

    json_object_keylen_foreach(members, name, length, value)
    {
        if (!is_name(name, length)) {
            add_name_error(taking, name, length);
            return false;
        }
    }
    return true;
}

static void take_extra_agents(struct taking *taking)
{
    json_t *members = read_members(taking);

    if (members != NULL && check_member_types(taking, members, JSON_TEXT_OBJECT) && check_names(taking, members))
        taking->request->extra_agents = json_incref(members);
    json_decref(members);
}

static void take_extra_skills(struct taking *taking)
{
    json_t *members = read_members(taking);

    if (members != NULL && check_member_types(taking, members, JSON_TEXT_STRING) && check_names(taking, members))
        taking->request->extra_skills = decode_members(members);
    json_decref(members);
}

static void take_files(struct taking *taking)
{
    json_t *members = read_members(taking);
    json_t *files, *placed;

    if (members != NULL && check_member_types(taking, members, JSON_TEXT_STRING) &&
        request_files_check_count(json_object_size(members), taking->errors)) {
        files = decode_members(members);
        placed = request_files_check(files, taking->errors);
        if (placed != NULL) {
            json_decref(taking->request->files);
            taking->request->files = placed;
        }
        json_decref(files);
    }
    json_decref(members);
}

/* --- the body ------------------------------------------------------------------------------------------ */

#define INTO(member) offsetof(struct query_request, member)

/* In the order of http-api.md 3.2, which is the order of the error list. */
static const struct field fields[] = {
    {"prompt", take_prompt, INTO(prompt), 0, 0, NULL},
    {"anthropic_api_key", take_key, INTO(anthropic_api_key), 0, 0, NULL},
    {"e2b_api_key", take_key, INTO(e2b_api_key), 0, 0, NULL},
    {"openrouter_api_key", take_key, INTO(openrouter_api_key), 0, 0, NULL},
    {"model", take_model, INTO(model), 0, 0, NULL},
    {"max_turns", take_integer, INTO(max_turns), 1, SAFE_INTEGER_MAX, NULL},
    {"output_format", take_object, INTO(output_format), 0, 0, NULL},
    {"timeout", take_integer, INTO(timeout_s), TIMEOUT_MIN_S, TIMEOUT_MAX_S, NULL},
    {"files", take_files, INTO(files), 0, 0, NULL},
    {"allowed_mcp_servers", take_names, INTO(allowed_mcp_servers), 0, 0, NULL},
    {"allowed_skills", take_names, INTO(allowed_skills), 0, 0, NULL},
    {"allowed_tools", take_strings, INTO(allowed_tools), 0, 0, NULL},
    {"allowed_agents", take_names, INTO(allowed_agents), 0, 0, NULL},
    {"resume", take_text, INTO(resume), 0, 0, NULL},
    {"fork_session", take_flag, INTO(fork_session), 0, 0, NULL},
    {"max_budget_usd", take_budget, INTO(max_budget_usd), 0, 0, NULL},
    {"team_id", take_text, INTO(team_id), 0, 0, NULL},
    {"user_id", take_text, INTO(user_id), 0, 0, NULL},
    {"channel_id", take_text, INTO(channel_id), 0, 0, NULL},
    {"remember", take_text, INTO(remember), 0, 0, NULL},
    {"extra_agents", take_extra_agents, INTO(extra_agents), 0, 0, "agent"},
    {"extra_skills", take_extra_skills, INTO(extra_skills), 0, 0, "skill"},
};

#define FIELD_COUNT (sizeof fields / sizeof *fields)

/* FIELD_COUNT for an unknown key. */
static size_t find_field(const char *name, size_t length)
{
    size_t i = 0;

    while (i < FIELD_COUNT && (strlen(fields[i].name) != length || memcmp(fields[i].name, name, length) != 0))
        i++;
    return i;
}

/* Where the values stand: of a repeated key the last wins. */
static bool find_values(struct json_text root, struct json_text values[static FIELD_COUNT])
{
    struct json_text_cursor cursor = json_text_enter(root);
    struct json_text key_text, value;

    while (json_text_next_member(&cursor, &key_text, &value)) {
        json_t *key = json_text_string(key_text);
        size_t field;

        if (key == NULL)
            return false;
        field = find_field(json_string_value(key), json_string_length(key));
        json_decref(key);
        if (field < FIELD_COUNT)
            values[field] = value;
    }
    return true;
}

static bool take_fields(struct query_request *request, struct json_text root, json_t *errors)
{
    struct json_text values[FIELD_COUNT] = {{0}};

    if (!find_values(root, values))
        return false;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        struct taking taking = {.request = request, .errors = errors, .field = &fields[i], .value = values[i]};
        bool is_null = values[i].start == NULL || json_text_type(values[i]) == JSON_TEXT_NULL;

        if (!is_null || fields[i].take == take_prompt)
            fields[i].take(&taking);
    }
    return request->prompt != NULL || json_array_size(errors) > 0;
}

static bool take_root(struct query_request *request, struct json_text root, json_t *errors)
{
    const struct field_place body = {.in = "body"};

    switch (json_text_type(root)) {
    case JSON_TEXT_OBJECT:
        return take_fields(request, root, errors);
    case JSON_TEXT_NULL:
        field_error_add(errors, body, "missing", "Field required", NULL);
        return true;
    case JSON_TEXT_BOOLEAN:
    case JSON_TEXT_NUMBER:
    case JSON_TEXT_STRING:
    case JSON_TEXT_ARRAY:
    default:
        field_error_add(errors, body, "model_attributes_type",
                        "Input should be a valid dictionary or object to extract fields from", NULL);
        return true;
    }
}

static void add_syntax_error(json_t *errors, size_t offset, const char *reason)
{
    json_array_append_new(errors, json_pack("{s:s, s:[s,I], s:s, s:{s:s}}", "type", "json_invalid", "loc", "body",
                                            (json_int_t)offset, "msg", "JSON decode error", "ctx", "error", reason));
}

/* body without its BOM, which was `skipped` bytes. */
static enum query_result parse_text(const char *body, size_t length, size_t skipped, struct query_request *request,
                                    json_t *errors)
{
    struct json_text_fault fault;
    struct json_text root;

    if (!utf8_is_valid(body, length))
        return QUERY_BAD_TEXT;
    switch (json_text_check(body, length, &root, &fault)) {
    case JSON_TEXT_OK:
        if (!take_root(request, root, errors))
            return QUERY_NO_MEMORY;
        break;
    case JSON_TEXT_TOO_DEEP:
        return QUERY_BAD_TEXT;
    case JSON_TEXT_INVALID:
    default:
        add_syntax_error(errors, skipped + fault.offset, fault.reason);
    }
    return json_array_size(errors) > 0 ? QUERY_BAD_FIELDS : QUERY_OK;
}

enum query_result query_request_parse(const char *body, size_t length, struct query_request *request, json_t **errors)
{
    static const char bom[] = "\xef\xbb\xbf";
    size_t skipped = length >= 3 && memcmp(body, bom, 3) == 0 ? 3 : 0;
    enum query_result result = QUERY_BAD_FIELDS;
    unsigned long refusals = memory_refusals();

    *request = (struct query_request){.files = json_object(), .max_budget_usd = NO_BUDGET};
    *errors = json_array();
    if (request->files == NULL || *errors == NULL)
        return QUERY_NO_MEMORY;
    if (length == 0)
        field_error_add(*errors, (struct field_place){.in = "body"}, "missing", "Field required", NULL);
    else
        result = parse_text(body + skipped, length - skipped, skipped, request, *errors);
    if (memory_refusals() != refusals)
        result = QUERY_NO_MEMORY;
    if (result == QUERY_BAD_FIELDS)
        return result;
    json_decref(*errors);
    *errors = NULL;
    return result;
}

json_t *query_value_error(const char *text)
{
    json_t *errors = json_array();

    field_error_add_value(errors, (struct field_place){.in = "body"}, text, strlen(text));
    return errors;
}

/* Keys do not stay in memory that was freed. */
static void release_key(char *key)
{
    if (key != NULL)
        explicit_bzero(key, strlen(key));
    free(key);
}

void query_request_release(struct query_request *request)
{
    json_t *const values[] = {
        request->prompt,         request->model,        request->output_format,       request->files,
        request->allowed_skills, request->resume,       request->allowed_tools,       request->allowed_agents,
        request->team_id,        request->user_id,      request->channel_id,          request->remember,
        request->extra_agents,   request->extra_skills, request->allowed_mcp_servers,
    };

    for (size_t i = 0; i < sizeof values / sizeof *values; i++)
        json_decref(values[i]);
    release_key(request->anthropic_api_key);
    release_key(request->e2b_api_key);
    release_key(request->openrouter_api_key);
    *request = (struct query_request){0};
}
