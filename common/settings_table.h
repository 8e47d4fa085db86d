/*
 * settings_table: which settings there are, and how text and value of one become each other. For settings.c, which
 * reads them, and settings_print.c, which shows them; others use settings.h.
 */
#ifndef COMMON_SETTINGS_TABLE_H
#define COMMON_SETTINGS_TABLE_H

#include "common/settings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SETTINGS_TABLE_MAX    128 /* entries */
#define SETTING_KEY_MAX_BYTES 64

enum setting_type {
    TYPE_INTEGER,
    TYPE_DURATION, /* stored in milliseconds */
    TYPE_SIZE,     /* stored in bytes */
    TYPE_STRING,
    TYPE_NAME, /* a string of [A-Za-z0-9._-], at most SETTINGS_NAME_MAX_BYTES */
    TYPE_LIST,
    TYPE_CHOICE,
};

struct choice {
    const char *name;
    int64_t value;
};

/* May a reload change it? */
enum reload_rule {
    HOT,
    FIXED,
    LOCAL, /* unless there is a local runtime: it was started with the old value */
};

struct setting {
    const char *key;
    enum setting_type type;
    enum reload_rule reload;
    size_t offset;
    const char *default_text; /* NULL: worked out by complete_defaults() */
    int64_t min;              /* in the stored unit */
    int64_t max;
    const struct choice *choices;
    const char *environment_alias; /* a variable other programs of this kind read too; weaker than SANDSTORM_<KEY> */
    const char *help;
};

extern const struct setting settings_table[];
extern const size_t settings_count; /* at most SETTINGS_TABLE_MAX */

/* The index of a key written with - or _; settings_count if there is none. */
size_t settings_find(const char *name, size_t length);

/* SANDSTORM_<KEY>. */
void setting_environment_name(const struct setting *setting, char *out, size_t size);

/* Is its value a text, else a number? */
bool setting_is_text(const struct setting *setting);
/* Where its value stands. */
int64_t *setting_number_at(struct settings *values, const struct setting *setting);
char **setting_text_at(struct settings *values, const struct setting *setting);

/* Reads a whole number with an optional unit; the reason of a failure, or NULL. */
const char *setting_parse_number(const struct setting *setting, const char *text, int64_t *value);
/* A number as the table's text would give it: seconds and bytes with the largest unit that divides them. */
void setting_format_number(const struct setting *setting, int64_t value, char *out, size_t size);

#endif
