#include "worker/trigger.h"

#include "common/scoreboard.h"
#include "worker/variables.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 64
#define FIELD_BYTES    64
/* What names and segments of paths are made of. */
#define WORD_BYTES "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

/* The members of one trigger, in the order of `member_names`. */
enum member { NAME, TYPE, PROMPT, SCHEDULE, PATH, SECRET, PUBLIC, MEMBERS };

static const char *const member_names[MEMBERS] = {
    [NAME] = "name", [TYPE] = "type",     [PROMPT] = "prompt", [SCHEDULE] = "schedule",
    [PATH] = "path", [SECRET] = "secret", [PUBLIC] = "public",
};

/* First segments of paths that are the server's own. */
static const char *const reserved[] = {"query", "runs",  "health", "ready",    "metrics",
                                       "docs",  "redoc", "slack",  "webhooks", "status"};

/* One trigger on its way into the set. */
struct reading {
    const struct project_faults *faults;
    const struct environment *environment;
    struct trigger_set *set;
    struct trigger *trigger;
    size_t index;
    struct json_text members[MEMBERS];
    bool failed;
};

/* --- faults ----------------------------------------------------------------------------------------------- */

/* what is "" for the trigger as a whole. */
static void tell(struct reading *reading, bool is_warning, const char *what, const char *reason)
{
    char field[FIELD_BYTES];

    snprintf(field, sizeof field, "triggers[%zu]%s%.40s", reading->index, *what != '\0' ? "." : "", what);
    reading->faults->on_fault(reading->faults->context, is_warning, field, reason);
    reading->failed = reading->failed || !is_warning;
}

static void fault(struct reading *reading, enum member member, const char *reason)
{
    tell(reading, false, member_names[member], reason);
}

/* before and after stand around what is the user's own, or a reason. */
static void fault_with(struct reading *reading, enum member member, const char *before, const char *what,
                       const char *after)
{
    char reason[256];

    snprintf(reason, sizeof reason, "%s%.150s%s", before, what, after);
    fault(reading, member, reason);
}

/* --- members ---------------------------------------------------------------------------------------------- */

static bool is_there(const struct reading *reading, enum member member)
{
    return reading->members[member].start != NULL;
}

/* A string that must be there; NULL after a fault. */
static json_t *take_string(struct reading *reading, enum member member)
{
    json_t *string = NULL;

    if (!is_there(reading, member))
        fault(reading, member, "is missing");
    else if (json_text_type(reading->members[member]) != JSON_TEXT_STRING)
        fault(reading, member, "must be a string");
    else if ((string = json_text_string(reading->members[member])) == NULL)
        fault(reading, member, "cannot be taken for lack of memory");
    return string;
}

/* As take_string(), a C string without NUL; the caller's. */
static char *take_word(struct reading *reading, enum member member)
{
    json_t *string = take_string(reading, member);
    char *word = NULL;

    if (string != NULL && strlen(json_string_value(string)) != json_string_length(string))
        fault(reading, member, "must not hold NUL");
    else if (string != NULL && (word = strdup(json_string_value(string))) == NULL)
        fault(reading, member, "cannot be taken for lack of memory");
    json_decref(string);
    return word;
}

static bool is_name(const char *word)
{
    size_t length = strlen(word);

    return length > 0 && length <= NAME_MAX_BYTES && isalnum((unsigned char)*word) &&
           strspn(word, WORD_BYTES) == length;
}

static void take_name(struct reading *reading)
{
    char *name = take_word(reading, NAME);

    reading->trigger->name = name;
    if (name == NULL)
        return;
    if (!is_name(name))
        fault(reading, NAME, "must be 1 to 64 letters, digits, _ and -, and begin with a letter or digit");
    else if (trigger_set_find(reading->set, name) != reading->trigger)
        fault_with(reading, NAME, "", name, " is the name of another trigger");
}

static void take_type(struct reading *reading)
{
    static const char *const types[] = {
        [TRIGGER_CRON] = "cron", [TRIGGER_WEBHOOK] = "webhook", [TRIGGER_REACTION] = "reaction"};
    char *type = take_word(reading, TYPE);
    bool known = false;

    for (size_t i = 0; type != NULL && i < sizeof types / sizeof *types; i++) {
        if (strcmp(type, types[i]) != 0)
            continue;
        known = true;
        reading->trigger->type = (enum trigger_type)i;
    }
    if (type != NULL && !known)
        fault(reading, TYPE, "must be \"cron\", \"webhook\" or \"reaction\"");
    free(type);
}

static void take_prompt(struct reading *reading)
{
    json_t *prompt = take_string(reading, PROMPT);

    reading->trigger->prompt = prompt;
    if (prompt != NULL && strspn(json_string_value(prompt), " \t\r\n\v\f") == json_string_length(prompt))
        fault(reading, PROMPT, "must not be blank");
}

/* --- cron ------------------------------------------------------------------------------------------------- */

static size_t count_crons(const struct trigger_set *set)
{
    size_t count = 0;

    for (size_t i = 0; i < set->count; i++)
        count += set->triggers[i].type == TRIGGER_CRON;
    return count;
}

static void take_schedule(struct reading *reading)
{
    char *schedule = take_word(reading, SCHEDULE);
    const char *reason;

    reading->trigger->schedule = schedule;
    if (schedule != NULL && !cron_parse(schedule, &reading->trigger->cron, &reason))
        fault_with(reading, SCHEDULE, "is no schedule: ", reason, "");
    if (count_crons(reading->set) == SCOREBOARD_SCHEDULES_MAX + 1) {
        char text[64];

        snprintf(text, sizeof text, "more than %d triggers of type cron", SCOREBOARD_SCHEDULES_MAX);
        tell(reading, false, "", text);
    }
}

/* --- webhook ---------------------------------------------------------------------------------------------- */

static bool is_path(const char *path)
{
    while (*path == '/') {
        size_t length = strspn(path + 1, WORD_BYTES);

        if (length == 0)
            return false;
        path += 1 + length;
        if (*path == '\0')
            return true;
    }
    return false;
}

static bool is_reserved(const char *path)
{
    size_t length = strcspn(path + 1, "/");

    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        if (strlen(reserved[i]) == length && memcmp(reserved[i], path + 1, length) == 0)
            return true;
    }
    return false;
}

static bool is_path_of_another(const struct reading *reading, const char *path)
{
    for (size_t i = 0; i < reading->index; i++) {
        const char *other = reading->set->triggers[i].path;

        if (other != NULL && strcmp(other, path) == 0)
            return true;
    }
    return false;
}

static void take_path(struct reading *reading)
{
    char *path = take_word(reading, PATH);

    reading->trigger->path = path;
    if (path == NULL)
        return;
    if (!is_path(path))
        fault(reading, PATH, "must be like /name or /name/name, of letters, digits, _ and -");
    else if (is_reserved(path))
        fault_with(reading, PATH, "", path, " is the server's own");
    else if (is_path_of_another(reading, path))
        fault_with(reading, PATH, "", path, " is the path of another trigger");
}

static bool is_public(struct reading *reading)
{
    if (!is_there(reading, PUBLIC))
        return false;
    if (json_text_type(reading->members[PUBLIC]) != JSON_TEXT_BOOLEAN) {
        fault(reading, PUBLIC, "must be true or false");
        return true;
    }
    return json_text_is_true(reading->members[PUBLIC]);
}

static bool is_printable(const json_t *string)
{
    const char *text = json_string_value(string);

    for (size_t i = 0; i < json_string_length(string); i++) {
        if (text[i] < 0x20 || text[i] > 0x7e)
            return false;
    }
    return true;
}

/* The secret with its variables; NULL where there is none, or after a fault. */
static json_t *expand_secret(struct reading *reading)
{
    struct variables variables = {.environment = reading->environment};
    json_t *secret = is_there(reading, SECRET) ? take_string(reading, SECRET) : NULL;

    if (secret == NULL || reading->environment == NULL)
        return secret;
    secret = variables_expand(secret, &variables);
    if (secret == NULL && *variables.missing != '\0')
        fault_with(reading, SECRET, "requires environment variable ", variables.missing, " to be set");
    else if (secret == NULL)
        fault(reading, SECRET, "a variable's value is not UTF-8");
    return secret;
}

static void take_secret(struct reading *reading)
{
    bool open = is_public(reading);
    json_t *secret = reading->failed ? NULL : expand_secret(reading);

    if (secret != NULL && json_string_length(secret) == 0) {
        json_decref(secret);
        secret = NULL;
    }
    reading->trigger->secret = secret;
    if (secret != NULL && !is_printable(secret))
        fault(reading, SECRET, "must be printable ASCII");
    else if (secret == NULL && !reading->failed && !open)
        fault(reading, SECRET, "is missing or empty: set one, or \"public\": true if anybody may start this agent");
    else if (secret == NULL && !reading->failed)
        tell(reading, true, "", "is public: anybody who reaches this server can start its agent");
}

/* --- one trigger, and all ------------------------------------------------------------------------------- */

/* Of a repeated key the last wins. */
static void find_members(struct reading *reading, struct json_text object)
{
    struct json_text_cursor cursor = json_text_enter(object);
    struct json_text key_text, value;

    while (json_text_next_member(&cursor, &key_text, &value)) {
        json_t *key = json_text_string(key_text);
        size_t member = 0;

        while (member < MEMBERS && strcmp(member_names[member], json_string_value(key)) != 0)
            member++;
        if (member < MEMBERS)
            reading->members[member] = value;
        else
            tell(reading, true, json_string_value(key), "is unknown, and ignored");
        json_decref(key);
    }
}

static void take_trigger(struct reading *reading, struct json_text value)
{
    if (json_text_type(value) != JSON_TEXT_OBJECT) {
        tell(reading, false, "", "must be an object");
        return;
    }
    find_members(reading, value);
    take_name(reading);
    take_type(reading);
    take_prompt(reading);
    if (reading->failed)
        return;
    switch (reading->trigger->type) {
    case TRIGGER_CRON:
        take_schedule(reading);
        break;
    case TRIGGER_WEBHOOK:
        take_path(reading);
        take_secret(reading);
        break;
    case TRIGGER_REACTION:
    default:
        tell(reading, true, "", "never fires: reactions need Slack, which this server does not serve");
    }
}

struct trigger_set *trigger_set_parse(struct json_text array, const struct environment *environment,
                                      const struct project_faults *faults)
{
    struct trigger_set *set = calloc(1, sizeof *set);
    struct json_text_cursor cursor = json_text_enter(array);
    struct json_text value;
    bool good = set != NULL;

    if (set == NULL)
        faults->on_fault(faults->context, false, "triggers", "cannot be taken for lack of memory");
    while (set != NULL && json_text_next_element(&cursor, &value)) {
        struct reading reading = {.faults = faults, .environment = environment, .set = set, .index = set->count};

        if (set->count == TRIGGERS_MAX) {
            faults->on_fault(faults->context, false, "triggers", "are more than 256");
            good = false;
            break;
        }
        reading.trigger = &set->triggers[set->count++];
        take_trigger(&reading, value);
        good = good && !reading.failed;
    }
    if (good)
        return set;
    trigger_set_free(set);
    return NULL;
}

void trigger_set_free(struct trigger_set *set)
{
    if (set == NULL)
        return;
    for (size_t i = 0; i < set->count; i++) {
        struct trigger *trigger = &set->triggers[i];

        free(trigger->name);
        json_decref(trigger->prompt);
        free(trigger->schedule);
        free(trigger->path);
        json_decref(trigger->secret);
    }
    free(set);
}

const struct trigger *trigger_set_find(const struct trigger_set *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (set->triggers[i].name != NULL && strcmp(set->triggers[i].name, name) == 0)
            return &set->triggers[i];
    }
    return NULL;
}
