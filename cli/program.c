#include "cli/program.h"

#include "cli/ds.h"
#include "common/near_program.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct {
    const char *name;
    const char *places[4];
} programs[] = {
    [PROGRAM_SERVER] = {"sandstorm", {"sandstorm", NULL}},
    [PROGRAM_RUNTIME] = {"sandboxd", {"sandboxd", "../libexec/sandstorm/sandboxd", NULL}},
};

char *program_path(enum program program)
{
    char *path = near_program(programs[program].places);

    if (path != NULL && *path == '\0') {
        free(path);
        path = strdup(programs[program].name);
    }
    return path;
}

int program_become(const char *command, enum program program, char *argv[])
{
    char *path = program_path(program);
    char name[32];

    snprintf(name, sizeof name, "%s", programs[program].name);
    argv[0] = name;
    if (path != NULL)
        execvp(path, argv);
    fprintf(stderr, "%s: cannot run %s, neither of this installation nor from PATH: %s\n", command, name,
            strerror(errno));
    free(path);
    return DS_FAILED;
}

/* In the child. */
static void become_quietly(const char *path, char *argv[], int err)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(null, STDOUT_FILENO) >= 0 && dup2(err, STDERR_FILENO) >= 0)
        execvp(path, argv);
    _exit(127);
}

/* Reads to the end; what does not fit is read and forgotten. */
static void read_all(int fd, char *output, size_t size)
{
    char rest[4096] = "";
    size_t used = 0;
    ssize_t n = 1;

    while (n > 0 || (n < 0 && errno == EINTR)) {
        bool fits = used + 1 < size;

        n = read(fd, fits ? output + used : rest, fits ? size - used - 1 : sizeof rest);
        if (n > 0 && fits)
            used += (size_t)n;
    }
    output[used] = '\0';
}

int program_run(enum program program, char *argv[], char *said, size_t size)
{
    char *path = program_path(program);
    int ends[2], status = -1;
    pid_t pid;

    *said = '\0';
    if (path == NULL || pipe2(ends, O_CLOEXEC) < 0) {
        free(path);
        return -1;
    }
    pid = fork();
    if (pid == 0)
        become_quietly(path, argv, ends[1]);
    close(ends[1]);
    if (pid > 0) {
        read_all(ends[0], said, size);
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
    }
    close(ends[0]);
    free(path);
    return pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 127 ? WEXITSTATUS(status) : -1;
}
