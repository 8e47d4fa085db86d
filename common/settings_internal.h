/*
 * settings_internal: one load from inside, for settings.c, which makes it, settings_keys.c, which adds the keys, and
 * settings_print.c, which shows it. Nobody else includes it.
 */
#ifndef COMMON_SETTINGS_INTERNAL_H
#define COMMON_SETTINGS_INTERNAL_H

#include "common/settings_table.h"

#include <stdio.h>

enum setting_source {
    SOURCE_DEFAULT,
    SOURCE_FILE,
    SOURCE_DOTENV,
    SOURCE_ENVIRONMENT,
    SOURCE_ARGV,
};

struct settings_load {
    struct settings values;
    enum setting_source source[SETTINGS_TABLE_MAX];
    int line[SETTINGS_TABLE_MAX]; /* in the file, for SOURCE_FILE */
    char *file;
    struct environment *environment; /* NULL before `.env` was read */
    enum settings_action action;
    struct settings_status status; /* for SETTINGS_STATUS */
    char *errors;
    size_t errors_size;
    FILE *errors_out;
    bool usage_error;
};

void settings_add_error(struct settings_load *load, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * Adds the files of keys to the environment of a load whose other sources have spoken, and takes from it what only it
 * gives. False for lack of memory.
 */
bool settings_read_keys(struct settings_load *load) __attribute__((warn_unused_result));
void settings_free_keys(struct settings_load *load);

#endif
