#include "worker/mcp_servers.h"

#include "worker/json_text.h"
#include "worker/utf8.h"
#include "worker/variables.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER_MAX_SHOWN 200 /* code points */

static char *failure_text(const char *server, const struct variables *variables)
{
    int shown = (int)utf8_prefix(server, strlen(server), SERVER_MAX_SHOWN);
    char *text = NULL;
    int length;

    if (*variables->missing != '\0')
        length = asprintf(&text, "mcp_servers.%.*s requires environment variable %s to be set", shown, server,
                          variables->missing);
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
        struct variables variables = {.environment = environment};

        evbuffer_add(out, separator, 1);
        if (!json_text_write_string(out, name, length) || evbuffer_add(out, ":", 1) < 0)
            return false;
        if (!json_text_rewrite(json_text_of(text), out, variables_expand, &variables)) {
            *error = failure_text(name, &variables);
            return false;
        }
        separator = ",";
    }
    evbuffer_add_printf(out, "%s}", *separator == '{' ? "{" : "");
    return true;
}
