#include "worker/variables.h"

#include <ctype.h>
#include <event2/buffer.h>
#include <stdbool.h>
#include <string.h>

/* ${NAME} or ${NAME:-default} at the start of a text. */
struct reference {
    const char *name;
    size_t name_length;
    const char *fallback; /* NULL: none */
    size_t fallback_length;
    size_t length; /* of the whole */
};

static bool parse_reference(const char *at, const char *end, struct reference *reference)
{
    const char *name = at + 2;
    const char *behind = name;

    if (end - at < 4 || at[0] != '$' || at[1] != '{' || !(isalpha((unsigned char)*name) || *name == '_'))
        return false;
    while (behind < end && (isalnum((unsigned char)*behind) || *behind == '_'))
        behind++;
    *reference = (struct reference){.name = name, .name_length = (size_t)(behind - name)};
    if (end - behind >= 2 && behind[0] == ':' && behind[1] == '-') {
        const char *fallback = behind + 2;

        behind = memchr(fallback, '}', (size_t)(end - fallback));
        if (behind == NULL)
            return false;
        reference->fallback = fallback;
        reference->fallback_length = (size_t)(behind - fallback);
    }
    if (behind >= end || *behind != '}')
        return false;
    reference->length = (size_t)(behind + 1 - at);
    return reference->name_length <= VARIABLE_NAME_MAX_BYTES;
}

/* False when the variable is neither set nor has a default. */
static bool add_value(struct variables *variables, const struct reference *reference, struct evbuffer *out)
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
        struct reference reference;

        if (dollar == NULL)
            dollar = end;
        evbuffer_add(out, at, (size_t)(dollar - at));
        at = dollar;
        if (at < end && parse_reference(at, end, &reference)) {
            if (!add_value(variables, &reference, out))
                return false;
            at += reference.length;
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
