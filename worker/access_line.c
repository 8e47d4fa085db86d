#include "worker/access_line.h"

#include "worker/timestamp.h"
#include "worker/utf8.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

/* A line that grows. It has room for the longest texts in their longest spelling; its end is always kept. */
struct line {
    char *bytes;
    size_t used;
};

void access_text_set(struct access_text *text, struct span value)
{
    size_t length = value.bytes != NULL ? value.length : 0;
    size_t back = 0;

    text->cut = length > ACCESS_TEXT_MAX_BYTES;
    if (text->cut) {
        length = ACCESS_TEXT_MAX_BYTES;
        while (back < 3 && ((unsigned char)value.bytes[length - back] & 0xc0) == 0x80)
            back++;
        if (utf8_announced((unsigned char)value.bytes[length - back]) > back)
            length -= back; /* not within a sequence */
    }
    text->length = (uint8_t)length;
    if (length > 0)
        memcpy(text->bytes, value.bytes, length);
}

struct span access_path(struct span target)
{
    static const char mark[] = "://";
    const char *scheme = target.length > 0 ? memmem(target.bytes, target.length, mark, strlen(mark)) : NULL;
    struct span path = target, rest = target;

    if (target.length == 0 || (*target.bytes != '/' && scheme == NULL && !span_is(target, "*")))
        return (struct span){NULL, 0}; /* whatever that is */
    if (*target.bytes != '/' && scheme != NULL) {
        size_t skipped = (size_t)(scheme - target.bytes) + strlen(mark);

        rest = (struct span){target.bytes + skipped, target.length - skipped};
        while (rest.length > 0 && *rest.bytes != '/' && *rest.bytes != '?')
            rest = (struct span){rest.bytes + 1, rest.length - 1};
    }
    (void)span_next(&rest, '?', &path);
    return path.length > 0 ? path : (struct span){"/", 1};
}

void access_facts_run(struct access_facts *facts, const struct access_run *run)
{
    facts->has_run = true;
    snprintf(facts->run_id, sizeof facts->run_id, "%s", run->id);
    facts->state = run->state;
    facts->error_code = run->error_code;
    facts->first_event_ms = run->first_event_ms;
    if (run->sandbox_id != NULL)
        access_text_set(&facts->sandbox_id, (struct span){run->sandbox_id, strlen(run->sandbox_id)});
    if (run->model != NULL)
        access_text_set(&facts->model, (struct span){run->model, strlen(run->model)});
}

/* --- pieces ----------------------------------------------------------------------------------------------- */

static void __attribute__((format(printf, 2, 3))) put(struct line *line, const char *format, ...)
{
    size_t room = ACCESS_LINE_MAX_BYTES - 1 - line->used;
    va_list args;
    int n;

    va_start(args, format);
    n = vsnprintf(line->bytes + line->used, room, format, args);
    va_end(args);
    if (n > 0)
        line->used += (size_t)n < room ? (size_t)n : room - 1;
}

static void put_char(struct line *line, char c)
{
    if (line->used < ACCESS_LINE_MAX_BYTES - 2)
        line->bytes[line->used++] = c;
}

/* Printable ASCII; all else as \xNN. */
static void put_escaped(struct line *line, const struct access_text *text)
{
    for (size_t i = 0; i < text->length; i++) {
        unsigned char c = (unsigned char)text->bytes[i];

        if (c < 0x20 || c > 0x7e || c == '"' || c == '\\')
            put(line, "\\x%02x", c);
        else
            put_char(line, (char)c);
    }
    if (text->length == 0)
        put(line, "-");
    if (text->cut)
        put(line, "...");
}

static void put_json_byte(struct line *line, unsigned char c)
{
    if (c == '"' || c == '\\')
        put(line, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
        put(line, "\\u%04x", c);
    else
        put_char(line, (char)c);
}

static void put_json_string(struct line *line, const struct access_text *text)
{
    size_t at = 0;

    if (text->length == 0) {
        put(line, "null");
        return;
    }
    put(line, "\"");
    while (at < text->length) {
        size_t sequence = utf8_sequence(text->bytes + at, text->length - at);

        if (sequence == 1)
            put_json_byte(line, (unsigned char)text->bytes[at]);
        else if (sequence == 0)
            put(line, "\xef\xbf\xbd");
        else
            put(line, "%.*s", (int)sequence, text->bytes + at);
        at += sequence > 0 ? sequence : 1;
    }
    put(line, text->cut ? "...\"" : "\"");
}

/* A member whose text needs no escape. */
static void put_json_plain(struct line *line, const char *key, const char *text)
{
    put(line, *text != '\0' ? ",\"%s\":\"%s\"" : ",\"%s\":null", key, text);
}

static void put_json_text(struct line *line, const char *key, const struct access_text *text)
{
    put(line, ",\"%s\":", key);
    put_json_string(line, text);
}

/* --- common ----------------------------------------------------------------------------------------------- */

static void put_common_run(struct line *line, const struct access_facts *facts)
{
    put(line, " run=%s state=%s code=%s", facts->run_id, facts->state,
        *facts->error_code != '\0' ? facts->error_code : "-");
    if (facts->first_event_ms >= 0)
        put(line, " first_event=%" PRId64 ".%03d", facts->first_event_ms / 1000, (int)(facts->first_event_ms % 1000));
    else
        put(line, " first_event=-");
    put(line, " events=%" PRIu64 " sandbox=", facts->events);
    put_escaped(line, &facts->sandbox_id);
    put(line, " model=\"");
    put_escaped(line, &facts->model);
    put(line, "\"");
}

static void put_common(struct line *line, const struct access_facts *facts)
{
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}; /* in every locale */
    time_t seconds = (time_t)(facts->started_us / 1000000);
    struct tm utc;

    gmtime_r(&seconds, &utc);
    put(line, "%s - - [%02d/%s/%04d:%02d:%02d:%02d +0000] \"", *facts->client != '\0' ? facts->client : "-",
        utc.tm_mday, months[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    put_escaped(line, &facts->method);
    put(line, " ");
    put_escaped(line, &facts->path);
    put(line, " HTTP/1.%d\" ", facts->is_http_1_0 ? 0 : 1);
    put(line, facts->status > 0 ? "%d" : "-", facts->status);
    put(line, " %" PRIu64 " \"-\" \"", facts->bytes);
    put_escaped(line, &facts->user_agent);
    put(line, "\" %" PRId64 ".%03d", facts->duration_us / 1000000, (int)(facts->duration_us / 1000 % 1000));
    if (facts->has_run)
        put_common_run(line, facts);
}

/* --- JSON ------------------------------------------------------------------------------------------------- */

static void put_json_run(struct line *line, const struct access_facts *facts)
{
    put_json_plain(line, "run_id", facts->run_id);
    put_json_plain(line, "state", facts->state);
    put_json_plain(line, "error_code", facts->error_code);
    if (facts->first_event_ms >= 0)
        put(line, ",\"first_event_ms\":%" PRId64, facts->first_event_ms);
    else
        put(line, ",\"first_event_ms\":null");
    put(line, ",\"events\":%" PRIu64, facts->events);
    put_json_text(line, "sandbox_id", &facts->sandbox_id);
    put_json_text(line, "model", &facts->model);
}

static void put_json(struct line *line, const struct access_facts *facts)
{
    char time[TIMESTAMP_BYTES];

    put(line, "{\"time\":\"%s\"", timestamp_format(facts->started_us, time));
    put_json_plain(line, "client", facts->client);
    put_json_text(line, "method", &facts->method);
    put_json_text(line, "path", &facts->path);
    put_json_plain(line, "protocol", facts->is_http_1_0 ? "HTTP/1.0" : "HTTP/1.1");
    put(line, facts->status > 0 ? ",\"status\":%d" : ",\"status\":null", facts->status);
    put(line, ",\"bytes\":%" PRIu64 ",\"duration_ms\":%" PRId64 ".%03d,\"complete\":%s", facts->bytes,
        facts->duration_us / 1000, (int)(facts->duration_us % 1000), facts->is_complete ? "true" : "false");
    put_json_text(line, "user_agent", &facts->user_agent);
    if (facts->has_run)
        put_json_run(line, facts);
    put(line, "}");
}

size_t access_line_format(const struct access_facts *facts, enum access_log_format format,
                          char line[static ACCESS_LINE_MAX_BYTES])
{
    struct line growing = {.bytes = line};

    if (format == ACCESS_LOG_JSON)
        put_json(&growing, facts);
    else
        put_common(&growing, facts);
    line[growing.used++] = '\n';
    return growing.used;
}
