#include "common/log.h"
#include "common/settings_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where systemd puts what a unit loads (LoadCredential=), and how its units name what is meant for us. */
#define CREDENTIALS_VARIABLE "CREDENTIALS_DIRECTORY"
#define CREDENTIAL_PREFIX    "sandstorm."

#define FILE_SUFFIX "_file"

/* Which setting names the file of which variable. */
static const struct {
    const char *setting, *variable;
} key_settings[] = {{"api_key_file", "SANDSTORM_API_KEY"},
                    {"api_key_previous_file", "SANDSTORM_API_KEY_PREVIOUS"},
                    {"anthropic_api_key_file", "ANTHROPIC_API_KEY"},
                    {"openrouter_api_key_file", "OPENROUTER_API_KEY"},
                    {"e2b_api_key_file", "E2B_API_KEY"}};

/* The credential that stands for a setting which is not set; "": the service manager has passed none. */
static char *default_file(const char *setting)
{
    const char *directory = getenv(CREDENTIALS_VARIABLE);
    size_t length = strlen(setting) - strlen(FILE_SUFFIX);
    char path[PATH_MAX];

    if (directory == NULL || snprintf(path, sizeof path, "%s/" CREDENTIAL_PREFIX "%.*s", directory, (int)length,
                                      setting) >= (int)sizeof path)
        return strdup("");
    return strdup(access(path, F_OK) == 0 ? path : "");
}

/* False for lack of memory. */
static bool read_key_files(struct settings_load *load, struct key_files *keys)
{
    for (size_t i = 0; i < sizeof key_settings / sizeof *key_settings; i++) {
        const char *name = key_settings[i].setting;
        char **path = setting_text_at(&load->values, &settings_table[settings_find(name, strlen(name))]);
        const char *reason;

        if (*path == NULL && (*path = default_file(name)) == NULL)
            return false;
        if (**path != '\0' && !key_files_read(keys, key_settings[i].variable, *path, &reason))
            settings_add_error(load, "setting %s: %s: %s", name, *path, reason);
    }
    return true;
}

/* Keys and lists that only the environment gives. */
static void take_values(struct settings_load *load)
{
    const struct {
        char **field;
        const char *name, *otherwise;
    } texts[] = {{&load->values.api_key, "SANDSTORM_API_KEY", ""},
                 {&load->values.api_key_previous, "SANDSTORM_API_KEY_PREVIOUS", ""},
                 {&load->values.cors_origins, "CORS_ORIGINS", "*"}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const char *value = environment_value(load->environment, texts[i].name);

        *texts[i].field = strdup(value != NULL ? value : texts[i].otherwise);
        if (*texts[i].field == NULL)
            log_panic("settings: no memory for %s", texts[i].name);
    }
}

static bool is_short_key(const char *key)
{
    return *key != '\0' && strlen(key) < SETTINGS_API_KEY_MIN_BYTES;
}

/* Both keys guard the same door: a previous one that can be guessed is none. */
static void check_values(struct settings_load *load)
{
    char *previous = load->values.api_key_previous;

    if (is_short_key(load->values.api_key))
        settings_add_error(load, "SANDSTORM_API_KEY is shorter than %d bytes", SETTINGS_API_KEY_MIN_BYTES);
    if (is_short_key(previous)) {
        log_warn("SANDSTORM_API_KEY_PREVIOUS is shorter than %d bytes: ignored", SETTINGS_API_KEY_MIN_BYTES);
        explicit_bzero(previous, strlen(previous));
    }
}

bool settings_read_keys(struct settings_load *load)
{
    struct key_files *keys = key_files_new();
    struct environment *environment = NULL;

    if (keys != NULL && read_key_files(load, keys))
        environment = environment_with_keys(load->environment, keys);
    key_files_unref(keys);
    if (environment == NULL)
        return false;
    environment_unref(load->environment);
    load->environment = environment;
    take_values(load);
    check_values(load);
    return true;
}

static void free_secret(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void settings_free_keys(struct settings_load *load)
{
    free_secret(load->values.api_key);
    free_secret(load->values.api_key_previous);
    free(load->values.cors_origins);
}
