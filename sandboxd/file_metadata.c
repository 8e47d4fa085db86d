#include "sandboxd/file_metadata.h"

#include <ctype.h>
#include <errno.h>
#include <linux/limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/xattr.h>

#define HEADER_PREFIX "X-Metadata-"
#define PREFIX_BYTES  (sizeof FILE_METADATA_PREFIX - 1)
#define KEY_MAX_BYTES 246
/* Of all names and values together. */
#define TOTAL_MAX_BYTES 4096
/* Of the list of a file's names: more than the limit above lets in. */
#define LIST_MAX_BYTES 65536

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            return false;
    }
    return true;
}

/* Adds one header; what is wrong with it, or NULL. */
static const char *add_header(json_t *metadata, const char *key, const char *value, size_t *total)
{
    char name[KEY_MAX_BYTES + 1];
    size_t length = strlen(key);

    if (length > KEY_MAX_BYTES)
        return "a key is longer than 246 bytes";
    if (!is_printable(key) || !is_printable(value))
        return "keys and values must be printable ASCII";
    for (size_t i = 0; i <= length; i++)
        name[i] = (char)tolower((unsigned char)key[i]);
    if (json_object_get(metadata, name) != NULL)
        return NULL; /* the first one counts */
    *total += PREFIX_BYTES + length + strlen(value);
    if (*total > TOTAL_MAX_BYTES)
        return "keys and values together are longer than 4096 bytes";
    return json_object_set_new(metadata, name, json_string(value)) == 0 ? NULL : "out of memory";
}

json_t *file_metadata_parse(const struct evkeyvalq *headers, const char **problem)
{
    json_t *metadata = json_object();
    const struct evkeyval *header;
    size_t total = 0;

    *problem = NULL;
    TAILQ_FOREACH(header, headers, next)
    {
        size_t prefix = sizeof HEADER_PREFIX - 1;

        if (*problem == NULL && strncasecmp(header->key, HEADER_PREFIX, prefix) == 0 && header->key[prefix] != '\0')
            *problem = add_header(metadata, header->key + prefix, header->value, &total);
    }
    if (*problem == NULL)
        return metadata;
    json_decref(metadata);
    return NULL;
}

/* Calls visit with the key of every attribute that is metadata; 0 or errno. */
static int each_attribute(int fd, void (*visit)(int fd, const char *key, void *arg), void *arg)
{
    char list[LIST_MAX_BYTES];
    ssize_t length = flistxattr(fd, list, sizeof list);

    if (length < 0)
        return errno;
    for (const char *name = list; name < list + length; name += strlen(name) + 1) {
        if (strncmp(name, FILE_METADATA_PREFIX, PREFIX_BYTES) == 0)
            visit(fd, name + PREFIX_BYTES, arg);
    }
    return 0;
}

static void attribute_name(char out[static XATTR_NAME_MAX + 1], const char *key)
{
    snprintf(out, XATTR_NAME_MAX + 1, FILE_METADATA_PREFIX "%s", key);
}

/* Takes off what is not wanted. */
static void remove_other(int fd, const char *key, void *arg)
{
    char name[XATTR_NAME_MAX + 1];

    if (json_object_get(arg, key) != NULL)
        return;
    attribute_name(name, key);
    fremovexattr(fd, name);
}

int file_metadata_write(int fd, const json_t *metadata)
{
    int error = each_attribute(fd, remove_other, (json_t *)metadata);
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)metadata, key, value)
    {
        char name[XATTR_NAME_MAX + 1];

        attribute_name(name, key);
        if (error == 0 && fsetxattr(fd, name, json_string_value(value), json_string_length(value), 0) < 0)
            error = errno;
    }
    return error == EOPNOTSUPP ? 0 : error;
}

/* Keeps one attribute. */
static void read_one(int fd, const char *key, void *arg)
{
    char name[XATTR_NAME_MAX + 1], value[TOTAL_MAX_BYTES];
    ssize_t length;

    attribute_name(name, key);
    length = fgetxattr(fd, name, value, sizeof value);
    if (length >= 0)
        json_object_set_new(arg, key, json_stringn(value, (size_t)length));
}

json_t *file_metadata_read(int fd)
{
    json_t *metadata = json_object();

    (void)each_attribute(fd, read_one, metadata);
    if (json_object_size(metadata) > 0)
        return metadata;
    json_decref(metadata);
    return NULL;
}
