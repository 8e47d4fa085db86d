#include "worker/cors.h"

#include <stdio.h>
#include <stdlib.h>

struct cors {
    bool any;
    size_t count;
    char **origins; /* point into list */
    char *list;
};

/* Cuts the list in place; origins has room for every entry it can have. */
static void split(struct cors *cors)
{
    char *rest = cors->list, *piece;

    while ((piece = strsep(&rest, ",")) != NULL) {
        struct span origin = span_trim((struct span){piece, strlen(piece)});

        if (origin.length == 0)
            continue;
        piece = cors->list + (origin.bytes - cors->list);
        piece[origin.length] = '\0';
        cors->any |= strcmp(piece, "*") == 0;
        cors->origins[cors->count++] = piece;
    }
}

struct cors *cors_new(const char *origins)
{
    struct cors *cors = calloc(1, sizeof *cors);
    size_t entries = 1;

    if (cors == NULL)
        return NULL;
    for (const char *at = origins; *at != '\0'; at++)
        entries += *at == ',';
    cors->list = strdup(origins);
    cors->origins = calloc(entries, sizeof *cors->origins);
    if (cors->list == NULL || cors->origins == NULL) {
        cors_free(cors);
        return NULL;
    }
    split(cors);
    cors->any |= *origins == '\0';
    return cors;
}

void cors_free(struct cors *cors)
{
    if (cors == NULL)
        return;
    free(cors->origins);
    free(cors->list);
    free(cors);
}

const char *cors_allow_origin(const struct cors *cors, struct span origin)
{
    if (origin.bytes == NULL)
        return NULL;
    if (cors->any)
        return "*";
    for (size_t i = 0; i < cors->count; i++) {
        if (span_is(origin, cors->origins[i]))
            return cors->origins[i];
    }
    return NULL;
}

size_t cors_fields(const char *allow_origin, struct cors_field fields[static CORS_FIELDS_MAX])
{
    if (allow_origin == NULL)
        return 0;
    fields[0] = (struct cors_field){"Access-Control-Allow-Origin", allow_origin};
    fields[1] = (struct cors_field){"Access-Control-Expose-Headers", "X-Sandstorm-Run-Id"};
    fields[2] = (struct cors_field){"Vary", "Origin"};
    return strcmp(allow_origin, "*") == 0 ? 2 : 3;
}

int cors_answer_preflight(const struct cors *cors, const struct cors_preflight *preflight, struct evbuffer *headers,
                          char body[static CORS_BODY_MAX_BYTES])
{
    const char *allowed = cors_allow_origin(cors, preflight->origin);
    bool method = span_is(preflight->method, "GET") || span_is(preflight->method, "POST");
    bool private = span_is_caseless(preflight->private_network, "true");
    bool fine = allowed != NULL && method && !private;

    if (allowed != NULL)
        evbuffer_add_printf(headers, "Access-Control-Allow-Origin: %s\r\n", allowed);
    evbuffer_add_printf(headers, "Access-Control-Allow-Methods: GET, POST\r\nAccess-Control-Max-Age: 600\r\n");
    if (preflight->headers.bytes != NULL)
        evbuffer_add_printf(headers, "Access-Control-Allow-Headers: %.*s\r\n", (int)preflight->headers.length,
                            preflight->headers.bytes);
    if (!cors->any)
        evbuffer_add_printf(headers, "Vary: Origin\r\n");
    if (fine)
        snprintf(body, CORS_BODY_MAX_BYTES, "OK");
    else
        snprintf(body, CORS_BODY_MAX_BYTES, "Disallowed CORS %s%s%s%s%s", allowed == NULL ? "origin" : "",
                 allowed == NULL && (!method || private) ? ", " : "", method ? "" : "method",
                 !method && private ? ", " : "", private ? "private-network" : "");
    return fine ? 200 : 400;
}
