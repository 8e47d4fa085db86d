/* A file of a key: its value is one line without blanks around it that stands in the file, or there is a reason. */
#include "common/key_files.h"
#include "tests/fuzz/fuzz.h"

#include <ctype.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct key_files *keys = key_files_new();
    int fd = memfd_create("key", MFD_CLOEXEC);
    const char *reason = NULL, *value;
    char path[32];

    FUZZ_CHECK(keys != NULL && fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (key_files_read(keys, "KEY", path, &reason)) {
        value = key_files_get(keys, "KEY");
        FUZZ_CHECK(value != NULL && *value != '\0' && memmem(data, size, value, strlen(value)) != NULL);
        FUZZ_CHECK(!isspace((unsigned char)*value) && !isspace((unsigned char)value[strlen(value) - 1]));
        for (const char *c = value; *c != '\0'; c++)
            FUZZ_CHECK(!iscntrl((unsigned char)*c));
    } else {
        FUZZ_CHECK(reason != NULL && *reason != '\0' && key_files_get(keys, "KEY") == NULL);
    }
    close(fd);
    key_files_unref(keys);
    return 0;
}
