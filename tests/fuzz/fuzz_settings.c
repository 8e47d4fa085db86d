/* A settings file: it is refused with a reason, or its values, written as a file, are the same values. */
#include "common/settings.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

static struct settings_load *load(const char *bytes, size_t size)
{
    int fd = memfd_create("settings", MFD_CLOEXEC);
    char path[32];
    char *words[] = {"sandstorm", "--config", path, "--project-dir", "/proc", NULL};
    struct settings_load *loaded;

    FUZZ_CHECK(fd >= 0 && write(fd, bytes, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    loaded = settings_load(5, words, NULL);
    FUZZ_CHECK(loaded != NULL);
    close(fd);
    return loaded;
}

/* Lines for a person. */
static void check_errors(const char *errors)
{
    FUZZ_CHECK(errors[strlen(errors) - 1] == '\n');
    for (const char *c = errors; *c != '\0'; c++)
        FUZZ_CHECK((unsigned char)*c >= 0x20 || *c == '\n');
}

/* key="value", whatever blanks there are around it; to be freed. */
static char *quote(const char *text)
{
    char *quoted = malloc(3 * strlen(text) + 1), *out = quoted;

    for (bool in_value = false; *text != '\0'; text++) {
        if (*text == '\n')
            *out++ = '"';
        *out++ = *text;
        if (*text == '=' && !in_value)
            *out++ = '"';
        in_value = *text != '\n' && (in_value || *text == '=');
    }
    *out = '\0';
    return quoted;
}

static void check_round_trip(const struct settings_load *loaded)
{
    char *text = settings_fixed_text(loaded), *quoted = quote(text), *text_again;
    struct settings_load *again = load(quoted, strlen(quoted));
    const char *key;
    bool usage;

    FUZZ_CHECK(*settings_load_errors(again, &usage) == '\0');
    text_again = settings_fixed_text(again);
    FUZZ_CHECK(strcmp(text, text_again) == 0);
    FUZZ_CHECK(settings_reload_allowed(loaded, again, false, &key));
    free(text);
    free(quoted);
    free(text_again);
    settings_load_free(again);
}

static void check_print(const struct settings_load *loaded)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    settings_print(loaded, out);
    FUZZ_CHECK(fclose(out) == 0 && size > 0);
    free(text);
}

/* A value in quotes is what stands between them. */
static void check_quotes(const char *instance)
{
    char text[64 + SETTINGS_NAME_MAX_BYTES];
    struct settings_load *loaded;

    snprintf(text, sizeof text, "instance = \"%s\"\n", instance);
    loaded = load(text, strlen(text));
    FUZZ_CHECK(strcmp(settings_load_values(loaded)->instance, instance) == 0);
    settings_load_free(loaded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool is_ready;
    struct settings_load *loaded;
    const char *errors;
    bool usage;

    if (!is_ready)
        clearenv();
    is_ready = true;
    loaded = load((const char *)data, size);
    errors = settings_load_errors(loaded, &usage);
    FUZZ_CHECK(!usage);
    if (*errors != '\0')
        check_errors(errors);
    else
        check_round_trip(loaded);
    if (*errors == '\0')
        check_quotes(settings_load_values(loaded)->instance);
    check_print(loaded);
    settings_load_free(loaded);
    return 0;
}
