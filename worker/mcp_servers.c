#include "worker/mcp_servers.h"

#include "worker/json_text.h"
#include "worker/utf8.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES   256
#define SERVER_MAX_SHOWN 200 /* code points */

struct expansion {
    const struct environment *environment;
    char missing[NAME_MAX_BYTES + 1]; /* the variable that is not set; "" so far */
};

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
    return reference->name_length <= NAME_MAX_BYTES;
}

/* False when the variable is neither set nor has a default. */
static bool add_value(struct expansion *expansion, const struct reference *reference, struct evbuffer *out)
{
    char name[NAME_MAX_BYTES + 1];
    const char *value;

    memcpy(name, reference->name, reference->name_length);
    name[reference->name_length] = '\0';
    value = environment_get(expansion->environment, name);
    if (value != NULL)
        evbuffer_add(out, value, strlen(value));
    else if (reference->fallback != NULL)
        evbuffer_add(out, reference->fallback, reference->fallback_length);
    else
        memcpy(expansion->missing, name, sizeof name);
    return value != NULL || reference->fallback != NULL;
}

/* Text between references goes out as it is, also what only looks like one. */
static bool expand_text(struct expansion *expansion, const char *at, const char *end, struct evbuffer *out)
{
    while (at < end) {
        const char *dollar = memchr(at, '$', (size_t)(end - at));
        struct reference reference;

        if (dollar == NULL)
            dollar = end;
        evbuffer_add(out, at, (size_t)(dollar - at));
        at = dollar;
        if (at < end && parse_reference(at, end, &reference)) {
            if (!add_value(expansion, &reference, out))
                return false;
            at += reference.length;
        } else if (at < end) {
            evbuffer_add(out, at++, 1);
        }
    }
    return true;
}

/* A map() of json_text_rewrite(). */
static json_t *expand_string(json_t *string, void *context)
{
    const char *text = json_string_value(string);
    size_t length = json_string_length(string);
    struct evbuffer *out;
    json_t *expanded = NULL;

    if (memchr(text, '$', length) == NULL)
        return string;
    out = evbuffer_new();
    if (out != NULL && expand_text(context, text, text + length, out)) {
        size_t size = evbuffer_get_length(out);

        /* A value of the environment need not be UTF-8. */
        expanded = json_stringn(size > 0 ? (const char *)evbuffer_pullup(out, -1) : "", size);
    }
    if (out != NULL)
        evbuffer_free(out);
    json_decref(string);
    return expanded;
}

static char *failure_text(const char *server, const struct expansion *expansion)
{
    int shown = (int)utf8_prefix(server, strlen(server), SERVER_MAX_SHOWN);
    char *text = NULL;
    int length;

    if (*expansion->missing != '\0')
        length = asprintf(&text, "mcp_servers.%.*s requires environment variable %s to be set", shown, server,
                          expansion->missing);
    else
        length = asprintf(&text, "mcp_servers.%.*s: a variable's value is not UTF-8", shown, server);
    if (length < 0)
        return NULL;
    return text;
}

bool mcp_servers_write(json_t *servers, const struct environment *environment, struct evbuffer *out, char **error)
{
    const char *separator = "{";
    const char *name;
    size_t length;
    json_t *text;

    *error = NULL;
    json_object_keylen_foreach(servers, name, length, text)
    {
        struct expansion expansion = {.environment = environment};

        evbuffer_add(out, separator, 1);
        if (!json_text_write_string(out, name, length) || evbuffer_add(out, ":", 1) < 0)
            return false;
        if (!json_text_rewrite(json_text_of(text), out, expand_string, &expansion)) {
            *error = failure_text(name, &expansion);
            return false;
        }
        separator = ",";
    }
    evbuffer_add_printf(out, "%s}", *separator == '{' ? "{" : "");
    return true;
}
