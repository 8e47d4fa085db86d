#include "worker/project.h"

#include "common/log.h"
#include "worker/coerce.h"
#include "worker/json_text.h"
#include "worker/memory_watch.h"
#include "worker/trigger.h"
#include "worker/utf8.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MIN_S    5
#define TIMEOUT_MAX_S    3600
#define SAFE_INTEGER_MAX 9007199254740991LL /* 2^53 - 1: the agent counts in doubles */

struct field;

/* One field on its way into the project. */
struct taking {
    struct project *project;
    const struct project_faults *faults;
    const struct field *field;
    struct json_text value;
    bool failed;
};

struct field {
    const char *name;
    void (*take)(struct taking *taking);
    size_t offset; /* of what it fills in struct project */
    int64_t min;
    int64_t max;
};

static void *target(const struct taking *taking)
{
    return (char *)taking->project + taking->field->offset;
}

static void fault(struct taking *taking, const char *reason)
{
    taking->failed = true;
    taking->faults->on_fault(taking->faults->context, false, taking->field->name, reason);
}

static void warn(struct taking *taking, const char *field, const char *reason)
{
    taking->faults->on_fault(taking->faults->context, true, field, reason);
}

/* --- types ---------------------------------------------------------------------------------------------- */

static enum json_text_type type_of(const struct taking *taking)
{
    return json_text_type(taking->value);
}

static void take_text(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_STRING)
        *(json_t **)target(taking) = json_text_string(taking->value);
    else
        fault(taking, "must be a string");
}

static bool is_blank(const json_t *string)
{
    const char *text = json_string_value(string);

    return strspn(text, " \t\r\n\v\f") == json_string_length(string);
}

static void take_model(struct taking *taking)
{
    take_text(taking);
    if (taking->project->model != NULL && is_blank(taking->project->model))
        fault(taking, "must not be blank");
}

/* Of JSON's numbers only those that are written as an integer. */
static void take_integer(struct taking *taking)
{
    struct json_text value = taking->value;
    int64_t number = 0;
    char reason[96];

    if (type_of(taking) != JSON_TEXT_NUMBER || memchr(value.start, '.', value.length) != NULL ||
        memchr(value.start, 'e', value.length) != NULL || memchr(value.start, 'E', value.length) != NULL ||
        coerce_integer(value, &number) != COERCED) {
        fault(taking, "must be an integer");
    } else if (number < taking->field->min) {
        snprintf(reason, sizeof reason, "must be at least %lld", (long long)taking->field->min);
        fault(taking, reason);
    } else if (number > taking->field->max) {
        snprintf(reason, sizeof reason, "must be at most %lld", (long long)taking->field->max);
        fault(taking, reason);
    } else {
        *(int64_t *)target(taking) = number;
    }
}

static void take_flag(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_BOOLEAN)
        *(bool *)target(taking) = json_text_is_true(taking->value);
    else
        fault(taking, "must be true or false");
}

static void take_object(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_OBJECT)
        *(json_t **)target(taking) = json_text_verbatim(NULL, taking->value, NULL);
    else
        fault(taking, "must be an object");
}

static void take_members(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_OBJECT)
        *(json_t **)target(taking) = json_text_members(taking->value, json_text_verbatim, NULL);
    else
        fault(taking, "must be an object");
}

static void take_strings(struct taking *taking)
{
    struct json_text_cursor cursor;
    struct json_text element;
    json_t *list;

    if (type_of(taking) != JSON_TEXT_ARRAY) {
        fault(taking, "must be an array of strings");
        return;
    }
    list = json_array();
    *(json_t **)target(taking) = list;
    cursor = json_text_enter(taking->value);
    while (json_text_next_element(&cursor, &element)) {
        if (json_text_type(element) != JSON_TEXT_STRING) {
            fault(taking, "must be an array of strings");
            return;
        }
        json_array_append_new(list, json_text_string(element));
    }
}

/* --- fields with rules of their own ------------------------------------------------------------------- */

static void take_system_prompt(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_STRING || type_of(taking) == JSON_TEXT_OBJECT)
        taking->project->system_prompt = json_text_verbatim(NULL, taking->value, NULL);
    else
        fault(taking, "must be a string or an object");
}

static void take_agents(struct taking *taking)
{
    if (type_of(taking) == JSON_TEXT_ARRAY)
        taking->project->agents_list = json_text_verbatim(NULL, taking->value, NULL);
    else if (type_of(taking) == JSON_TEXT_OBJECT)
        take_members(taking);
    else
        fault(taking, "must be an object or an array");
}

/* A C string, so that none hides behind a NUL; the caller's. NULL for every other value. */
static json_t *read_word(struct json_text value)
{
    json_t *word = json_text_type(value) == JSON_TEXT_STRING ? json_text_string(value) : NULL;

    if (word == NULL || strlen(json_string_value(word)) == json_string_length(word))
        return word;
    json_decref(word);
    return NULL;
}

static void take_provider(struct taking *taking, struct json_text value)
{
    json_t *name = read_word(value);
    const char *text = name != NULL ? json_string_value(name) : "";

    if (strcmp(text, "e2b") == 0)
        taking->project->runtime = RUNTIME_E2B;
    else if (strcmp(text, "local") == 0)
        taking->project->runtime = RUNTIME_LOCAL;
    else
        fault(taking, "provider must be \"e2b\" or \"local\"");
    json_decref(name);
}

static void warn_of_runtime_field(struct taking *taking, const char *name)
{
    char *field;

    if (asprintf(&field, "runtime.%s", name) < 0) {
        memory_note_refusal();
        return;
    }
    warn(taking, field, "is unknown, and ignored");
    free(field);
}

static void take_runtime(struct taking *taking)
{
    struct json_text_cursor cursor;
    struct json_text key_text, value, provider = {0};

    if (type_of(taking) != JSON_TEXT_OBJECT) {
        fault(taking, "must be an object");
        return;
    }
    taking->project->runtime = RUNTIME_AUTO;
    cursor = json_text_enter(taking->value);
    while (json_text_next_member(&cursor, &key_text, &value)) {
        json_t *key = json_text_string(key_text);

        if (key != NULL && strcmp(json_string_value(key), "provider") == 0)
            provider = value; /* the last wins */
        else if (key != NULL)
            warn_of_runtime_field(taking, json_string_value(key));
        json_decref(key);
    }
    if (provider.start != NULL)
        take_provider(taking, provider);
}

/* http or https and a host, as curl reads URLs. */
static bool is_web_url(const char *text)
{
    CURLU *url = curl_url();
    char *scheme = NULL;
    bool good = url != NULL && curl_url_set(url, CURLUPART_URL, text, 0) == CURLUE_OK &&
                curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

    curl_free(scheme);
    curl_url_cleanup(url);
    return good;
}

static void take_webhook_url(struct taking *taking)
{
    json_t *text = read_word(taking->value);

    taking->project->webhook_url = text;
    if (text == NULL || !is_web_url(json_string_value(text)))
        fault(taking, "must be an http or https URL");
}

/* Whether it exists is the project directory's to see. */
static void take_skills_dir(struct taking *taking)
{
    taking->project->skills_dir = read_word(taking->value);
    if (taking->project->skills_dir == NULL)
        fault(taking, type_of(taking) == JSON_TEXT_STRING ? "must not hold NUL" : "must be a string");
}

/* Whether the variables of their secrets are set is seen where they are used. */
static void take_triggers(struct taking *taking)
{
    struct trigger_set *set;

    if (type_of(taking) != JSON_TEXT_ARRAY) {
        fault(taking, "must be an array");
        return;
    }
    set = trigger_set_parse(taking->value, NULL, taking->faults);
    taking->failed = taking->failed || set == NULL;
    trigger_set_free(set);
    taking->project->triggers = json_text_verbatim(NULL, taking->value, NULL);
}

static void take_channels(struct taking *taking)
{
    if (type_of(taking) != JSON_TEXT_OBJECT)
        fault(taking, "must be an object");
}

/* --- the file ------------------------------------------------------------------------------------------- */

#define INTO(member) offsetof(struct project, member)
#define NOWHERE      0

static const struct field fields[] = {
    {"system_prompt", take_system_prompt, NOWHERE, 0, 0},
    {"system_prompt_append", take_text, INTO(system_prompt_append), 0, 0},
    {"model", take_model, INTO(model), 0, 0},
    {"max_turns", take_integer, INTO(max_turns), 1, SAFE_INTEGER_MAX},
    {"timeout", take_integer, INTO(timeout_s), TIMEOUT_MIN_S, TIMEOUT_MAX_S},
    {"output_format", take_object, INTO(output_format), 0, 0},
    {"agents", take_agents, INTO(agents), 0, 0},
    {"mcp_servers", take_members, INTO(mcp_servers), 0, 0},
    {"skills_dir", take_skills_dir, NOWHERE, 0, 0},
    {"template_skills", take_flag, INTO(template_skills), 0, 0},
    {"allowed_tools", take_strings, INTO(allowed_tools), 0, 0},
    {"runtime", take_runtime, NOWHERE, 0, 0},
    {"webhook_url", take_webhook_url, NOWHERE, 0, 0},
    {"triggers", take_triggers, NOWHERE, 0, 0},
    {"channels", take_channels, NOWHERE, 0, 0},
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
static void find_values(struct json_text root, struct json_text values[static FIELD_COUNT],
                        const struct project_faults *faults)
{
    struct json_text_cursor cursor = json_text_enter(root);
    struct json_text key_text, value;

    while (json_text_next_member(&cursor, &key_text, &value)) {
        json_t *key = json_text_string(key_text);
        size_t field = find_field(json_string_value(key), json_string_length(key));

        if (field < FIELD_COUNT)
            values[field] = value;
        else if (key != NULL)
            faults->on_fault(faults->context, true, json_string_value(key), "is unknown, and ignored");
        json_decref(key);
    }
}

/* null is not absent here: a field that is there has to mean something. */
static bool take_fields(struct project *project, struct json_text root, const struct project_faults *faults)
{
    struct json_text values[FIELD_COUNT] = {{0}};
    bool good = true;

    find_values(root, values, faults);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        struct taking taking = {.project = project, .faults = faults, .field = &fields[i], .value = values[i]};

        if (values[i].start != NULL)
            fields[i].take(&taking);
        good &= !taking.failed;
    }
    return good;
}

/* The root object of the text; false after a fault. */
static bool check_text(const char *text, size_t length, struct json_text *root, const struct project_faults *faults)
{
    struct json_text_fault syntax;
    char reason[128];

    if (length > PROJECT_MAX_BYTES) {
        faults->on_fault(faults->context, false, "", "is larger than 1 MiB");
        return false;
    }
    if (!utf8_is_valid(text, length)) {
        faults->on_fault(faults->context, false, "", "is not UTF-8");
        return false;
    }
    switch (json_text_check(text, length, root, &syntax)) {
    case JSON_TEXT_OK:
        if (json_text_type(*root) == JSON_TEXT_OBJECT)
            return true;
        faults->on_fault(faults->context, false, "", "must be a JSON object");
        return false;
    case JSON_TEXT_TOO_DEEP:
        faults->on_fault(faults->context, false, "", "is nested too deeply");
        return false;
    case JSON_TEXT_INVALID:
    default:
        snprintf(reason, sizeof reason, "is not JSON: %s at byte %zu", syntax.reason, syntax.offset);
        faults->on_fault(faults->context, false, "", reason);
        return false;
    }
}

struct project *project_empty(void)
{
    struct project *project = calloc(1, sizeof *project);

    if (project != NULL)
        project->references = 1;
    return project;
}

struct project *project_parse(const char *text, size_t length, const struct project_faults *faults)
{
    struct project *project = project_empty();
    unsigned long refusals = memory_refusals();
    struct json_text root;
    bool good = project != NULL && check_text(text, length, &root, faults) && take_fields(project, root, faults);

    if (project == NULL || memory_refusals() != refusals) {
        faults->on_fault(faults->context, false, "", "cannot be taken for lack of memory");
        good = false;
    }
    if (good)
        return project;
    project_unref(project);
    return NULL;
}

struct project *project_ref(struct project *project)
{
    project->references++;
    return project;
}

void project_unref(struct project *project)
{
    if (project == NULL || --project->references > 0)
        return;
    json_decref(project->system_prompt);
    json_decref(project->system_prompt_append);
    json_decref(project->model);
    json_decref(project->output_format);
    json_decref(project->agents);
    json_decref(project->agents_list);
    json_decref(project->mcp_servers);
    json_decref(project->skills_dir);
    json_decref(project->allowed_tools);
    json_decref(project->triggers);
    json_decref(project->webhook_url);
    free(project);
}
