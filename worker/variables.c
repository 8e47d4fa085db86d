#include "worker/variables.h"

#include <event2/buffer.h>
#include <stdbool.h>
#include <string.h>

/* False when the variable is neither set nor has a default. */
static bool add_value(struct variables *variables, const struct placeholder_variable *reference, struct evbuffer *out)
{
    char name[VARIABLE_NAME_MAX_BYTES + 1];
    const char *value;

    memcpy(name, reference->name, reference->name_length);
    name[reference->name_length] = '\0';
    value = environment_get(variables->environment, name);
    if (value != NULL)
        evbuffer_add(out, value, strlen(value));
    else if (reference->fallback != NULL)
        evbuffer_add(out, reference->fallback, reference->fallback_length);
    else
        memcpy(variables->missing, name, sizeof name);
    return value != NULL || reference->fallback != NULL;
}

/* Text between references goes out as it is, also what only looks like one. */
static bool expand_text(struct variables *variables, const char *at, const char *end, struct evbuffer *out)
{
    while (at < end) {
        const char *dollar = memchr(at, '$', (size_t)(end - at));
        struct placeholder_variable reference;
        size_t length;

        if (dollar == NULL)
            dollar = end;
        evbuffer_add(out, at, (size_t)(dollar - at));
        at = dollar;
        length = placeholder_variable(at, (size_t)(end - at), &reference);
        if (length > 0) {
            if (!add_value(variables, &reference, out))
                return false;
            at += length;
        } else if (at < end) {
            evbuffer_add(out, at++, 1);
        }
    }
    return true;
}

json_t *variables_expand(json_t *string, void *variables)
{
    const char *text = json_string_value(string);
    size_t length = json_string_length(string);
    struct evbuffer *out;
    json_t *expanded = NULL;

    if (memchr(text, '$', length) == NULL)
        return string;
    out = evbuffer_new();
    if (out != NULL && expand_text(variables, text, text + length, out)) {
        size_t size = evbuffer_get_length(out);

        /* A value of the environment need not be UTF-8. */
        expanded = json_stringn(size > 0 ? (const char *)evbuffer_pullup(out, -1) : "", size);
    }
    if (out != NULL)
        evbuffer_free(out);
    json_decref(string);
    return expanded;
}
