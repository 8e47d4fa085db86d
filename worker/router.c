#include "worker/router.h"

#include "worker/percent.h"
#include "worker/request_guard.h"

#include <stdio.h>

/* Does a segment as sent decode to the text? */
static bool decodes_to(struct span segment, struct span text)
{
    size_t at = 0, compared = 0;

    while (at < segment.length && compared < text.length) {
        char c;

        at += percent_decode(segment.bytes + at, segment.length - at, &c);
        if (c != text.bytes[compared++])
            return false;
    }
    return at == segment.length && compared == text.length;
}

/* An id is any segment that is not empty and holds no slash once decoded. */
static bool is_id(struct span segment)
{
    for (size_t at = 0; at < segment.length;) {
        char c;

        at += percent_decode(segment.bytes + at, segment.length - at, &c);
        if (c == '/')
            return false;
    }
    return segment.length > 0;
}

static bool path_matches(const char *pattern, struct span path, struct span *id)
{
    struct span patterns = {pattern, strlen(pattern)};
    struct span wanted, segment;

    *id = (struct span){NULL, 0};
    while (span_next(&patterns, '/', &wanted)) {
        if (!span_next(&path, '/', &segment))
            return false;
        if (!span_is(wanted, "{id}")) {
            if (!decodes_to(segment, wanted))
                return false;
        } else if (is_id(segment)) {
            *id = segment;
        } else {
            return false;
        }
    }
    return !span_next(&path, '/', &segment);
}

static const struct route *find(const struct route *routes, struct span path, struct span *id)
{
    for (; routes->path != NULL; routes++) {
        if (path_matches(routes->path, path, id))
            return routes;
    }
    return NULL;
}

/* Reads evhttp the URL too? What it does not, it would refuse itself, and with HTML. */
static bool has_host(struct span url)
{
    char text[GUARD_REQUEST_LINE_MAX_BYTES + 1];
    struct evhttp_uri *uri;
    bool has;

    snprintf(text, sizeof text, "%.*s", (int)url.length, url.bytes);
    uri = evhttp_uri_parse_with_flags(text, EVHTTP_URI_NONCONFORMANT);
    has = uri != NULL && evhttp_uri_get_host(uri) != NULL && *evhttp_uri_get_host(uri) != '\0';
    if (uri != NULL)
        evhttp_uri_free(uri);
    return has;
}

/* Path and query of /a?b, http://h/a?b and `*`; false for other forms. */
static bool split_target(struct span target, struct router_match *match)
{
    static const char *const schemes[] = {"http://", "https://"};
    struct span rest = target;

    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t length = strlen(schemes[i]);

        if (target.length <= length || strncasecmp(target.bytes, schemes[i], length) != 0)
            continue;
        if (!has_host(target))
            return false;
        rest = (struct span){target.bytes + length, target.length - length};
        while (rest.length > 0 && *rest.bytes != '/' && *rest.bytes != '?')
            rest = (struct span){rest.bytes + 1, rest.length - 1};
    }
    if (rest.bytes == target.bytes && *target.bytes != '/' && !span_is(target, "*"))
        return false;
    (void)span_next(&rest, '?', &match->path);
    match->query = rest;
    if (match->path.length == 0)
        match->path = (struct span){"/", 1};
    return true;
}

enum router_result router_match(const struct route *routes, struct span target, struct router_match *match)
{
    struct span shorter;

    *match = (struct router_match){.route = NULL};
    if (target.length == 0 || !split_target(target, match))
        return ROUTER_NO_TARGET;
    match->route = find(routes, match->path, &match->id);
    if (match->route != NULL)
        return ROUTER_FOUND;
    shorter = (struct span){match->path.bytes, match->path.length - 1};
    if (shorter.length > 1 && match->path.bytes[shorter.length] == '/')
        match->route = find(routes, shorter, &match->id);
    return match->route != NULL ? ROUTER_SLASH : ROUTER_UNKNOWN;
}
