#include "worker/trigger_prompt.h"

#include "common/placeholder.h"
#include "worker/json_member.h"
#include "worker/json_sorted.h"
#include "worker/span.h"
#include "worker/stderr_text.h"

#include <event2/buffer.h>
#include <event2/keyvalq_struct.h>
#include <string.h>

/* Never given to an agent. */
static const char *const withheld[] = {"authorization", "proxy-authorization", "cookie", TRIGGER_SECRET_HEADER};

/* --- values as text --------------------------------------------------------------------------------------- */

/* What a place shows: a string as it is, null as nothing. */
static bool show_value(struct evbuffer *out, struct json_text value)
{
    json_t *string;
    bool good;

    if (json_text_type(value) == JSON_TEXT_NULL)
        return true;
    if (json_text_type(value) != JSON_TEXT_STRING)
        return json_sorted_write(value, out);
    string = json_text_string(value);
    good = string != NULL && evbuffer_add(out, json_string_value(string), json_string_length(string)) == 0;
    json_decref(string);
    return good;
}

/* --- sources ---------------------------------------------------------------------------------------------- */

/* path: what follows `body.`. A body that is no object is its member `raw`. */
static bool show_body(struct evbuffer *out, struct json_text value, struct span path)
{
    struct span name;
    bool is_first = true;

    while (value.start != NULL && span_next(&path, '.', &name)) {
        if (json_text_type(value) == JSON_TEXT_OBJECT)
            value = json_member(value, name);
        else if (!is_first)
            value = json_element(value, name);
        else if (!span_is(name, "raw"))
            value.start = NULL;
        is_first = false;
    }
    return value.start == NULL || show_value(out, value);
}

/* Of a repeated header the last wins. */
static bool show_header(struct evbuffer *out, const struct evkeyvalq *headers, struct span name)
{
    const char *found = NULL;
    const struct evkeyval *header;
    json_t *text;
    bool good;

    for (size_t i = 0; i < sizeof withheld / sizeof *withheld; i++) {
        if (span_is_caseless(name, withheld[i]))
            return true;
    }
    for (header = headers != NULL ? headers->tqh_first : NULL; header != NULL; header = header->next.tqe_next) {
        if (span_is_caseless(name, header->key))
            found = header->value;
    }
    if (found == NULL)
        return true;
    text = json_lossy_string(found, strlen(found));
    good = text != NULL && evbuffer_add(out, json_string_value(text), json_string_length(text)) == 0;
    json_decref(text);
    return good;
}

/* The value of a path, "" when there is none. A bare source is none. */
static bool show_path(struct evbuffer *out, const struct trigger_sources *sources, struct span path)
{
    struct span source;

    (void)span_next(&path, '.', &source);
    if (path.bytes == NULL)
        return true;
    if (span_is(source, "body"))
        return show_body(out, sources->body, path);
    if (span_is(source, "headers"))
        return show_header(out, sources->headers, path);
    return true;
}

/* --- the prompt ------------------------------------------------------------------------------------------- */

static void add_escaped(struct evbuffer *out, struct span text)
{
    static const char special[] = "&<>";
    static const char *const escapes[] = {"&amp;", "&lt;", "&gt;"};
    size_t from = 0;

    for (size_t i = 0; i < text.length; i++) {
        const char *which = text.bytes[i] != '\0' ? strchr(special, text.bytes[i]) : NULL;

        if (which == NULL)
            continue;
        evbuffer_add(out, text.bytes + from, i - from);
        evbuffer_add(out, escapes[which - special], strlen(escapes[which - special]));
        from = i + 1;
    }
    evbuffer_add(out, text.bytes + from, text.length - from);
}

static bool fill_place(struct evbuffer *out, const struct trigger_sources *sources, struct span path)
{
    struct evbuffer *value = evbuffer_new();
    bool good = value != NULL && show_path(value, sources, path);
    size_t length = good ? evbuffer_get_length(value) : 0;

    if (length > 0) {
        evbuffer_add_printf(out, "<trigger_value path=\"%.*s\">", (int)path.length, path.bytes);
        add_escaped(out, (struct span){(const char *)evbuffer_pullup(value, -1), length});
        good = evbuffer_add_printf(out, "</trigger_value>") > 0;
    }
    if (value != NULL)
        evbuffer_free(value);
    return good;
}

static bool render(struct evbuffer *out, const struct trigger_sources *sources, struct span text)
{
    while (text.length > 0 && evbuffer_get_length(out) <= TRIGGER_PROMPT_STOP_BYTES) {
        const char *brace = memchr(text.bytes, '{', text.length);
        size_t before = brace != NULL ? (size_t)(brace - text.bytes) : text.length;
        struct span path;
        size_t length;

        if (evbuffer_add(out, text.bytes, before) < 0)
            return false;
        text = (struct span){text.bytes + before, text.length - before};
        if (text.length == 0)
            return true;
        length = placeholder_source(text.bytes, text.length, &path.bytes, &path.length);
        if (length > 0 ? !fill_place(out, sources, path) : evbuffer_add(out, text.bytes, 1) < 0)
            return false;
        length = length > 0 ? length : 1;
        text = (struct span){text.bytes + length, text.length - length};
    }
    return true;
}

json_t *trigger_prompt_render(const json_t *prompt, const struct trigger_sources *sources)
{
    struct evbuffer *out = evbuffer_new();
    json_t *rendered = NULL;

    if (out != NULL && render(out, sources, (struct span){json_string_value(prompt), json_string_length(prompt)})) {
        size_t length = evbuffer_get_length(out);

        rendered = json_stringn_nocheck(length > 0 ? (const char *)evbuffer_pullup(out, -1) : "", length);
    }
    if (out != NULL)
        evbuffer_free(out);
    return rendered;
}
