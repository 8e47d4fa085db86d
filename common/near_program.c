#include "common/near_program.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *near_program(const char *const *candidates)
{
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    char *path = NULL;

    if (n <= 0)
        return strdup("");
    program[n] = '\0';
    *strrchr(program, '/') = '\0';
    for (; *candidates != NULL; candidates++) {
        const char *folder = **candidates == '/' ? "" : program;
        char *real;

        if (asprintf(&path, "%s/%s", folder, *candidates) < 0)
            return NULL;
        real = realpath(path, NULL);
        free(path);
        if (real != NULL)
            return real;
    }
    return strdup("");
}
