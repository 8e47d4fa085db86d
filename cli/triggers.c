#include "cli/triggers.h"

#include "cli/format.h"
#include "common/placeholder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool trigger_is(const json_t *trigger, const char *type)
{
    const char *own = field_string(trigger, "type");

    return own != NULL && strcmp(own, type) == 0;
}

const json_t *triggers_find(const json_t *project, const char *name)
{
    const json_t *trigger;
    size_t i;

    json_array_foreach(json_object_get(project, "triggers"), i, trigger)
    {
        const char *own = field_string(trigger, "name");

        if (own != NULL && strcmp(own, name) == 0)
            return trigger;
    }
    return NULL;
}

/* False when the variable is neither set nor has a default. */
static bool write_variable(FILE *out, const struct placeholder_variable *variable,
                           const struct environment *environment)
{
    char name[VARIABLE_NAME_MAX_BYTES + 1];
    const char *value;

    memcpy(name, variable->name, variable->name_length);
    name[variable->name_length] = '\0';
    value = environment_get(environment, name);
    if (value != NULL)
        fputs(value, out);
    else if (variable->fallback != NULL)
        fwrite(variable->fallback, 1, variable->fallback_length, out);
    return value != NULL || variable->fallback != NULL;
}

/* A text with its variables; NULL when one is missing, or for lack of memory. */
static char *expand(const char *text, const struct environment *environment)
{
    char *expanded = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&expanded, &size);
    bool good = out != NULL;

    while (good && *text != '\0') {
        struct placeholder_variable variable;
        size_t length = placeholder_variable(text, strlen(text), &variable);

        if (length > 0)
            good = write_variable(out, &variable, environment);
        else
            fputc(*text, out);
        text += length > 0 ? length : 1;
    }
    if (out != NULL && (fclose(out) != 0 || !good)) {
        free(expanded);
        expanded = NULL;
    }
    return expanded;
}

enum trigger_secret trigger_secret(const json_t *trigger, const struct environment *environment, char **text)
{
    const char *given = field_string(trigger, "secret");

    *text = NULL;
    if (!trigger_is(trigger, "webhook"))
        return TRIGGER_SECRET_NONE;
    *text = given != NULL ? expand(given, environment) : NULL;
    if (*text != NULL && **text != '\0')
        return TRIGGER_SECRET_SET;
    free(*text);
    *text = NULL;
    return json_is_true(json_object_get(trigger, "public")) ? TRIGGER_SECRET_PUBLIC : TRIGGER_SECRET_MISSING;
}

json_t *trigger_scheduled_prompt(const json_t *trigger)
{
    const json_t *prompt = json_object_get(trigger, "prompt");
    const char *at = json_string_value(prompt), *end = at + json_string_length(prompt);
    char *kept = NULL;
    size_t size = 0;
    FILE *out = at != NULL ? open_memstream(&kept, &size) : NULL;
    json_t *text = NULL;

    while (out != NULL && at < end) {
        const char *path;
        size_t path_length, length = placeholder_source(at, (size_t)(end - at), &path, &path_length);

        if (length == 0)
            fputc(*at, out);
        at += length > 0 ? length : 1;
    }
    if (out != NULL && fclose(out) == 0)
        text = json_stringn(kept, size);
    free(kept);
    return text;
}
