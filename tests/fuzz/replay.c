/* Feeds each file that is named, and each file of a directory that is named, to one fuzz target. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <string.h>
#include <sys/stat.h>

static void replay_file(const char *path)
{
    FILE *in = fopen(path, "rb");
    uint8_t *data = NULL;
    long size;

    if (in == NULL || fseek(in, 0, SEEK_END) != 0 || (size = ftell(in)) < 0 || fseek(in, 0, SEEK_SET) != 0 ||
        (data = malloc((size_t)size + 1)) == NULL || fread(data, 1, (size_t)size, in) != (size_t)size) {
        perror(path);
        exit(EXIT_FAILURE);
    }
    fclose(in);
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
}

/* How many files there were. */
static size_t replay(const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    size_t count = 0;

    if (directory == NULL) {
        replay_file(path);
        return 1;
    }
    while ((entry = readdir(directory)) != NULL) {
        char *inside;

        if (entry->d_name[0] == '.' || asprintf(&inside, "%s/%s", path, entry->d_name) < 0)
            continue;
        replay_file(inside);
        free(inside);
        count++;
    }
    closedir(directory);
    return count;
}

int main(int argc, char *argv[])
{
    size_t count = 0;

    for (int i = 1; i < argc; i++)
        count += replay(argv[i]);
    printf("%zu inputs\n", count);
    return count > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
