#include "sandboxd/api_key.h"

#include "common/log.h"
#include "sandboxd/access.h"
#include "sandboxd/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define KEY_PREFIX    "e2b_"
#define KEY_MAX_BYTES 256
#define INVALID_KEY   "Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\n"
#define MAKE_A_KEY    "make one with: (umask 077; echo e2b_$(openssl rand -hex 20) > FILE)"

struct api_keys {
    bool listed;
    size_t count;
    char (*entries)[KEY_MAX_BYTES];
};

static bool has_prefix(const char *key)
{
    return strncmp(key, KEY_PREFIX, strlen(KEY_PREFIX)) == 0;
}

/* What SDKs send at all: e2b_ and hex digits. */
static bool is_key(const char *key)
{
    return has_prefix(key) && key[strlen(KEY_PREFIX)] != '\0' &&
           key[strlen(KEY_PREFIX) + strspn(key + strlen(KEY_PREFIX), "0123456789abcdef")] == '\0';
}

/* Takes one line of the file; empty ones and comments are passed over. false when it is no key. */
static bool add_line(struct api_keys *keys, char *line)
{
    char(*grown)[KEY_MAX_BYTES];

    line[strcspn(line, "\r\n")] = '\0';
    if (*line == '\0' || *line == '#')
        return true;
    if (strlen(line) >= KEY_MAX_BYTES || !is_key(line))
        return false;
    grown = reallocarray(keys->entries, keys->count + 1, sizeof *grown);
    if (grown == NULL)
        log_panic("out of memory");
    keys->entries = grown;
    strcpy(keys->entries[keys->count++], line);
    return true;
}

/* Reads all lines; false with the reason logged. Keys are in no message. */
static bool read_file(struct api_keys *keys, const char *path, FILE *file)
{
    char *line = NULL;
    size_t size = 0;
    unsigned number = 0;
    bool good = true;

    while (good && getline(&line, &size, file) >= 0) {
        number++;
        good = add_line(keys, line);
    }
    free(line);
    if (!good)
        log_error("%s: line %u is not e2b_ and hex digits, which is what the SDKs take; " MAKE_A_KEY, path, number);
    else if (ferror(file))
        log_error("%s: %s", path, strerror(errno));
    else if (keys->count == 0)
        log_error("%s: holds no key; " MAKE_A_KEY, path);
    return good && !ferror(file) && keys->count > 0;
}

static void warn_if_public(const char *path, FILE *file)
{
    struct stat status;

    if (fstat(fileno(file), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO) & ~(mode_t)S_IRGRP) != 0)
        log_warn("%s: others may read or write the keys: chmod 600", path);
}

struct api_keys *api_keys_new(const char *path)
{
    struct api_keys *keys = memory_new(sizeof *keys);
    FILE *file = path == NULL ? NULL : fopen(path, "re");
    bool good = path == NULL;

    keys->listed = path != NULL;
    if (file != NULL) {
        warn_if_public(path, file);
        good = read_file(keys, path, file);
        fclose(file);
    } else if (path != NULL) {
        log_error("%s: %s; " MAKE_A_KEY, path, strerror(errno));
    }
    if (good)
        return keys;
    api_keys_free(keys);
    return NULL;
}

void api_keys_free(struct api_keys *keys)
{
    if (keys == NULL)
        return;
    free(keys->entries);
    free(keys);
}

bool api_keys_are_listed(const struct api_keys *keys)
{
    return keys->listed;
}

const char *api_keys_refusal(const struct api_keys *keys, const char *key)
{
    bool found = false;

    if (key == NULL || *key == '\0')
        return "authorization header is missing";
    if (!has_prefix(key))
        return "authorization header is malformed";
    if (!keys->listed)
        return NULL;
    if (!is_key(key))
        return INVALID_KEY "Invalid API key format";
    for (size_t i = 0; i < keys->count; i++)
        found |= access_token_equal(key, keys->entries[i]);
    return found ? NULL : INVALID_KEY "Cannot get the team for the given API key";
}
