/* A file of keys of sandboxd: each of its lines is taken, and nothing that is none of them. */
#include "sandboxd/api_key.h"
#include "tests/fuzz/fuzz.h"

#include <sys/mman.h>
#include <unistd.h>

static bool is_key(const char *line)
{
    size_t length = strlen(line);

    return length > 4 && length < 256 && strncmp(line, "e2b_", 4) == 0 &&
           strspn(line + 4, "0123456789abcdef") == length - 4;
}

/* Are there keys, and nothing but keys, comments and empty lines? */
static bool has_keys_only(const char *bytes)
{
    char *copy = strdup(bytes), *rest = copy, *line;
    size_t keys = 0, others = 0;

    while ((line = strsep(&rest, "\n")) != NULL) {
        line[strcspn(line, "\r")] = '\0';
        keys += is_key(line);
        others += !is_key(line) && *line != '\0' && *line != '#';
    }
    free(copy);
    return keys > 0 && others == 0;
}

static void check_lines(const struct api_keys *keys, char *text)
{
    char *line;

    while ((line = strsep(&text, "\n")) != NULL) {
        line[strcspn(line, "\r")] = '\0';
        if (*line != '\0' && *line != '#')
            FUZZ_CHECK(api_keys_refusal(keys, line) == NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("keys", MFD_CLOEXEC);
    char path[32], *text = fuzz_text(data, size);
    struct api_keys *keys;

    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    keys = api_keys_new(path);
    close(fd);
    if (size == 0 || memchr(data, '\0', size) == NULL)
        FUZZ_CHECK((keys != NULL) == has_keys_only(text));
    if (keys != NULL) {
        FUZZ_CHECK(api_keys_are_listed(keys) && api_keys_refusal(keys, NULL) != NULL);
        FUZZ_CHECK(api_keys_refusal(keys, "") != NULL && api_keys_refusal(keys, "e2b_") != NULL);
        if (memchr(data, '\0', size) == NULL)
            check_lines(keys, text);
        if (memmem(data, size, "e2b_5eed", 8) == NULL)
            FUZZ_CHECK(api_keys_refusal(keys, "e2b_5eed") != NULL);
    }
    api_keys_free(keys);
    free(text);
    return 0;
}
