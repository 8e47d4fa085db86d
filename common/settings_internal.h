/*
 * settings_internal: one load from inside, for settings.c, which makes it, and settings_print.c, which shows it. Nobody
 * else includes it.
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

#endif
