#include "sandboxd/init/talk.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

/* A file's metadata, as extended attributes. */
#define METADATA_PREFIX      "user.e2b."
#define METADATA_MAX_BYTES   4096
#define METADATA_NAMES_BYTES 65536
#define NAME_MAX_BYTES       64
#define NO_ID                UINT32_MAX

/* The last name that was looked up: a listing asks for the same one again and again. */
struct known_name {
    uint32_t id;
    char name[NAME_MAX_BYTES];
};

/* The name of a user in /etc/passwd, without the libraries of getpwuid(3); the number when there is none. */
static const char *user_name(uint32_t id)
{
    static struct known_name known = {.id = NO_ID};
    struct passwd *entry = NULL;
    FILE *file;

    if (known.id == id)
        return known.name;
    known.id = id;
    snprintf(known.name, sizeof known.name, "%u", id);
    file = fopen("/etc/passwd", "re");
    while (file != NULL && (entry = fgetpwent(file)) != NULL && entry->pw_uid != id) {
    }
    if (entry != NULL)
        snprintf(known.name, sizeof known.name, "%s", entry->pw_name);
    if (file != NULL)
        fclose(file);
    return known.name;
}

/* The same for a group. */
static const char *group_name(uint32_t id)
{
    static struct known_name known = {.id = NO_ID};
    struct group *entry = NULL;
    FILE *file;

    if (known.id == id)
        return known.name;
    known.id = id;
    snprintf(known.name, sizeof known.name, "%u", id);
    file = fopen("/etc/group", "re");
    while (file != NULL && (entry = fgetgrent(file)) != NULL && entry->gr_gid != id) {
    }
    if (entry != NULL)
        snprintf(known.name, sizeof known.name, "%s", entry->gr_name);
    if (file != NULL)
        fclose(file);
    return known.name;
}

/* Puts what metadata there is: keys and values. */
static void put_metadata(const char *path)
{
    static char names[METADATA_NAMES_BYTES];
    ssize_t bytes = listxattr(path, names, sizeof names);

    for (const char *name = names; bytes > 0 && name < names + bytes; name += strlen(name) + 1) {
        char value[METADATA_MAX_BYTES + 1];
        ssize_t length;

        if (strncmp(name, METADATA_PREFIX, sizeof METADATA_PREFIX - 1) != 0)
            continue;
        length = getxattr(path, name, value, sizeof value - 1);
        if (length < 0)
            continue;
        value[length] = '\0';
        talk_put_string(name + sizeof METADATA_PREFIX - 1);
        talk_put_string(value);
    }
}

bool entry_put(const char *path, const char *shown)
{
    struct filesystem_entry entry = {0};
    char target[FILESYSTEM_PATH_MAX_BYTES];
    struct stat file, followed;

    if (lstat(path, &file) < 0)
        return false;
    entry.size = file.st_size;
    entry.modified_s = file.st_mtim.tv_sec;
    entry.modified_ns = (uint32_t)file.st_mtim.tv_nsec;
    entry.mode = file.st_mode;
    entry.target_mode = stat(path, &followed) == 0 ? followed.st_mode : 0;
    talk_put(&entry, sizeof entry);
    talk_put_string(shown);
    talk_put_string(user_name(file.st_uid));
    talk_put_string(group_name(file.st_gid));
    if (S_ISLNK(file.st_mode))
        talk_put_string(realpath(path, target) == NULL ? shown : target);
    else
        put_metadata(path);
    return true;
}
