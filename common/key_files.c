#include "common/key_files.h"

#include "common/log.h"
#include "common/small_file.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct key {
    const char *variable;
    char *text; /* as it was read */
    size_t length;
    const char *value; /* in text, and ends there */
};

struct key_files {
    unsigned references;
    size_t count;
    struct key keys[KEY_FILES_MAX];
};

struct key_files *key_files_new(void)
{
    struct key_files *keys = calloc(1, sizeof *keys);

    if (keys != NULL)
        keys->references = 1;
    return keys;
}

struct key_files *key_files_ref(struct key_files *keys)
{
    if (keys != NULL)
        keys->references++;
    return keys;
}

void key_files_unref(struct key_files *keys)
{
    if (keys == NULL || --keys->references > 0)
        return;
    for (size_t i = 0; i < keys->count; i++)
        small_file_free(keys->keys[i].text, keys->keys[i].length);
    free(keys);
}

/* Its one line as *value, which ends in text; what is wrong with it, or NULL. */
static const char *find_value(char *text, size_t length, const char **value)
{
    char *end = text + length;

    if (memchr(text, '\0', length) != NULL)
        return "holds a NUL byte";
    while (end > text && isspace((unsigned char)end[-1]))
        end--;
    *end = '\0';
    while (isspace((unsigned char)*text))
        text++;
    for (const char *c = text; *c != '\0'; c++) {
        if (iscntrl((unsigned char)*c))
            return "holds more than one line";
    }
    *value = text;
    return *text == '\0' ? "is empty" : NULL;
}

bool key_files_read(struct key_files *keys, const char *variable, const char *path, const char **reason)
{
    struct key key = {.variable = variable};

    if (keys->count == KEY_FILES_MAX)
        log_panic("key files: no room for %s", variable);
    key.text = small_file_read(path, KEY_FILE_MAX_BYTES, &key.length, reason);
    if (key.text == NULL)
        return false;
    *reason = find_value(key.text, key.length, &key.value);
    if (*reason != NULL) {
        small_file_free(key.text, key.length);
        return false;
    }
    keys->keys[keys->count++] = key;
    return true;
}

const char *key_files_get(const struct key_files *keys, const char *variable)
{
    for (size_t i = 0; i < keys->count; i++) {
        if (strcmp(keys->keys[i].variable, variable) == 0)
            return keys->keys[i].value;
    }
    return NULL;
}
