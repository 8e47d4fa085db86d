#include "sandboxd/file_headers.h"

#include "common/log.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a byte of a file name asks for. */
enum form {
    FORM_TOKEN,    /* it may stand bare */
    FORM_QUOTED,   /* in quotes */
    FORM_EXTENDED, /* percent-encoded: no ASCII, or a control character */
};

static enum form form_of(const char *name)
{
    enum form form = *name == '\0' ? FORM_QUOTED : FORM_TOKEN;

    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;

        if (c < ' ' || c > '~')
            return FORM_EXTENDED;
        if (!isalnum(c) && strchr("!#$&+-.^_`{|}~", c) == NULL)
            form = FORM_QUOTED;
    }
    return form;
}

/* Writes a name in quotes. */
static void put_quoted(FILE *out, const char *name)
{
    fputc('"', out);
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\')
            fputc('\\', out);
        fputc(*name, out);
    }
    fputc('"', out);
}

/* Writes a name as RFC 2231 does. */
static void put_extended(FILE *out, const char *name)
{
    for (; *name != '\0'; name++) {
        unsigned char c = (unsigned char)*name;

        if (isalnum(c) || (c < 0x80 && strchr("!#$&+-.^_`|~", c) != NULL))
            fputc(c, out);
        else
            fprintf(out, "%%%02X", c);
    }
}

char *file_disposition(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);

    if (out == NULL)
        log_panic("out of memory");
    switch (form_of(name)) {
    case FORM_TOKEN:
        fprintf(out, "inline; filename=%s", name);
        break;
    case FORM_QUOTED:
        fputs("inline; filename=", out);
        put_quoted(out, name);
        break;
    case FORM_EXTENDED:
        fputs("inline; filename*=utf-8''", out);
        put_extended(out, name);
        break;
    }
    if (fclose(out) != 0 || text == NULL)
        log_panic("out of memory");
    return text;
}

const char *file_date(time_t time, char out[static FILE_DATE_MAX_BYTES])
{
    struct tm utc;

    if (gmtime_r(&time, &utc) == NULL || strftime(out, FILE_DATE_MAX_BYTES, "%a, %d %b %Y %H:%M:%S GMT", &utc) == 0)
        out[0] = '\0';
    return out;
}

/* Reads digits, at least one; false when there are none or too many. */
static bool read_offset(const char **text, off_t *offset)
{
    char *end;
    long long value;

    if (!isdigit((unsigned char)**text))
        return false;
    value = strtoll(*text, &end, 10);
    if (end - *text > 18)
        return false;
    *text = end;
    *offset = value;
    return true;
}

enum file_range_result file_range(const char *header, off_t size, off_t *start, off_t *length)
{
    static const char unit[] = "bytes=";
    off_t first = -1, last = -1;
    bool has_first, has_last;

    if (header == NULL || strncmp(header, unit, sizeof unit - 1) != 0)
        return FILE_RANGE_WHOLE;
    header += sizeof unit - 1;
    has_first = read_offset(&header, &first);
    if (*header++ != '-')
        return FILE_RANGE_WHOLE;
    has_last = read_offset(&header, &last);
    if (*header != '\0' || (!has_first && !has_last) || (has_first && has_last && last < first))
        return FILE_RANGE_WHOLE;
    if (size == 0 || (has_first ? first >= size : last == 0))
        return FILE_RANGE_UNSATISFIABLE;
    if (!has_first)
        first = last < size ? size - last : 0;
    if (!has_first || !has_last || last >= size)
        last = size - 1;
    *start = first;
    *length = last - first + 1;
    return FILE_RANGE_PART;
}
