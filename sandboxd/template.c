#include "sandboxd/template.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool template_name_is_valid(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t length = strlen(name);

    return length > 0 && length < TEMPLATE_NAME_MAX_BYTES && strspn(name, allowed) == length && *name != '.' &&
           *name != '-';
}

bool template_find(const char *dir, const char *name, char path[static PATH_MAX])
{
    struct stat found;
    int length = dir == NULL ? 0 : snprintf(path, PATH_MAX, "%s/%s", dir, name);

    if (dir != NULL && length < PATH_MAX && stat(path, &found) == 0 && S_ISDIR(found.st_mode))
        return true;
    path[0] = '\0';
    return strcmp(name, TEMPLATE_BASE) == 0;
}

bool template_path_is_reserved(const char *path)
{
    static const char *const reserved[] = {
        "/etc/passwd", "/etc/group",        "/etc/hosts",       "/etc/nsswitch.conf", "/etc/resolv.conf",
        "/etc/ssl",    "/etc/alternatives", "/etc/ld.so.cache", "/etc/localtime",     "/opt/agent-runner"};

    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++) {
        size_t length = strlen(reserved[i]);

        if (strncmp(path, reserved[i], length) == 0 && (path[length] == '\0' || path[length] == '/'))
            return true;
    }
    return false;
}
