#include "common/log.h"
#include "common/settings_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* A value as text: a setting's own, or its number written into room[]. */
static const char *value_text(const struct settings_load *load, size_t index, char *room, size_t size)
{
    struct settings values = load->values;

    if (setting_is_text(&settings_table[index]))
        return *setting_text_at(&values, &settings_table[index]);
    setting_format_number(&settings_table[index], *setting_number_at(&values, &settings_table[index]), room, size);
    return room;
}

/* Writes a value without the password that a URL may hold. */
static void print_value(const char *text, int width, FILE *out)
{
    const char *user = strstr(text, "://");
    const char *end = user != NULL ? strrchr(user, '@') : NULL; /* the password may hold one too */

    if (end == NULL)
        fprintf(out, "%-*s", width, text);
    else
        fprintf(out, "%.*s***%-*s", (int)(user + 3 - text), text, width, end);
}

static void format_source(const struct settings_load *load, size_t index, char *out, size_t size)
{
    switch (load->source[index]) {
    case SOURCE_DEFAULT:
        snprintf(out, size, "default");
        break;
    case SOURCE_FILE:
        snprintf(out, size, "%s:%d", load->file, load->line[index]);
        break;
    case SOURCE_DOTENV:
        snprintf(out, size, ".env");
        break;
    case SOURCE_ENVIRONMENT:
        snprintf(out, size, "environment");
        break;
    case SOURCE_ARGV:
        snprintf(out, size, "command line");
        break;
    default:
        log_panic("settings: source %d", (int)load->source[index]);
    }
}

void settings_print(const struct settings_load *load, FILE *out)
{
    for (size_t i = 0; i < settings_count; i++) {
        char room[64], source[PATH_MAX + 16];

        format_source(load, i, source, sizeof source);
        fprintf(out, "%s = ", settings_table[i].key);
        print_value(value_text(load, i, room, sizeof room), (int)(34 - strlen(settings_table[i].key)), out);
        fprintf(out, " # %s\n", source);
    }
}

void settings_print_help(FILE *out)
{
    fputs("usage: sandstorm [--config FILE] [--SETTING VALUE]...\n"
          "       sandstorm status [--json] [--pid PID] [--SETTING VALUE]...\n"
          "       sandstorm --check | --version | --help\n\n"
          "Runs AI agents for clients of POST /query, each in a fresh sandbox.\n\n"
          "  --config FILE                 settings file (also SANDSTORM_CONFIG)\n"
          "  --check                       print every effective setting and its source; exit 0 or 1\n"
          "  status                        tell how the server of this state_dir is, or that of --pid, even when it "
          "does not\n"
          "                                answer; exit 0, or 3 when it does not run, or 1 when it cannot be seen\n\n"
          "Settings (also SANDSTORM_<NAME> in the environment or `.env`, `name = value` in the file):\n",
          out);
    for (size_t i = 0; i < settings_count; i++) {
        const char *shown = settings_table[i].default_text != NULL ? settings_table[i].default_text : "";
        char option[SETTING_KEY_MAX_BYTES];

        snprintf(option, sizeof option, "%s", settings_table[i].key);
        for (char *c = option; *c != '\0'; c++)
            *c = *c == '_' ? '-' : *c;
        fprintf(out, "  --%-27s %s%s%s%s\n", option, settings_table[i].help, *shown != '\0' ? " [" : "", shown,
                *shown != '\0' ? "]" : "");
    }
}

char *settings_fixed_text(const struct settings_load *load)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < settings_count; i++) {
        char room[64];

        if (settings_table[i].reload == FIXED)
            fprintf(out, "%s=%s\n", settings_table[i].key, value_text(load, i, room, sizeof room));
    }
    if (fclose(out) == 0)
        return text;
    free(text);
    return NULL;
}
