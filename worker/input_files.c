#include "worker/input_files.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

struct input_file {
    char *path;
    size_t size;
    unsigned char digest[SPOOL_DIGEST_BYTES];
};

struct input_files {
    size_t count;
    struct input_file files[];
};

struct input_files *input_files_new(json_t *files)
{
    struct input_files *inputs = calloc(1, sizeof *inputs + json_object_size(files) * sizeof *inputs->files);
    const char *path;
    json_t *content;

    if (inputs == NULL)
        return NULL;
    json_object_foreach(files, path, content)
    {
        struct input_file *file = &inputs->files[inputs->count++];

        file->size = json_string_length(content);
        file->path = strdup(path);
        if (file->path == NULL ||
            EVP_Digest(json_string_value(content), file->size, file->digest, NULL, EVP_sha256(), NULL) != 1) {
            input_files_free(inputs);
            return NULL;
        }
    }
    return inputs;
}

void input_files_free(struct input_files *inputs)
{
    if (inputs == NULL)
        return;
    for (size_t i = 0; i < inputs->count; i++)
        free(inputs->files[i].path);
    free(inputs);
}

static const struct input_file *find(const struct input_files *inputs, const char *path, size_t size)
{
    for (size_t i = 0; i < inputs->count; i++) {
        if (inputs->files[i].size == size && strcmp(inputs->files[i].path, path) == 0)
            return &inputs->files[i];
    }
    return NULL;
}

bool input_files_may_be(const struct input_files *inputs, const char *path, size_t size)
{
    return find(inputs, path, size) != NULL;
}

bool input_files_is(const struct input_files *inputs, const char *path, struct spool *spool)
{
    const struct input_file *file = find(inputs, path, spool_length(spool));
    unsigned char digest[SPOOL_DIGEST_BYTES];

    return file != NULL && spool_digest(spool, digest) && memcmp(digest, file->digest, sizeof digest) == 0;
}
