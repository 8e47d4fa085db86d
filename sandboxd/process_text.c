#include "sandboxd/process.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

char *process_resolve_path(const char *path)
{
    char *resolved = NULL;

    if (path == NULL || *path == '\0')
        return strdup(JAIL_HOME);
    if (*path == '/')
        return strdup(path);
    if (*path == '~' && path[1] != '\0' && path[1] != '/')
        return NULL;
    if (*path == '~')
        return asprintf(&resolved, JAIL_HOME "%s", path + 1) < 0 ? NULL : resolved;
    return asprintf(&resolved, JAIL_HOME "/%s", path) < 0 ? NULL : resolved;
}

const char *process_status_text(int wait_status, char out[static PROCESS_STATUS_MAX_BYTES])
{
    int used;

    if (WIFEXITED(wait_status)) {
        snprintf(out, PROCESS_STATUS_MAX_BYTES, "exit status %d", WEXITSTATUS(wait_status));
        return out;
    }
    used = snprintf(out, PROCESS_STATUS_MAX_BYTES, "signal: %s%s", strsignal(WTERMSIG(wait_status)),
                    WCOREDUMP(wait_status) ? " (core dumped)" : "");
    for (int i = 0; i < used && i < PROCESS_STATUS_MAX_BYTES; i++)
        out[i] = (char)tolower((unsigned char)out[i]);
    return out;
}
