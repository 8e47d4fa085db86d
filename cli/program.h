/* program: the other programs of this installation: the server, and the local runtime. */
#ifndef CLI_PROGRAM_H
#define CLI_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

enum program { PROGRAM_SERVER, PROGRAM_RUNTIME };

/* Its path: beside ds, where `make install` puts it, else its name for PATH. To be freed; NULL for lack of memory. */
char *program_path(enum program program) __attribute__((warn_unused_result));

/* ds becomes the program; argv[0] is set here. Returns only on failure, with an exit code and after a message. */
int program_become(const char *command, enum program program, char *argv[]) __attribute__((warn_unused_result));

/* Runs it to its end: what it says on standard error, cut to what fits, and its exit code; -1 when it cannot be run. */
int program_run(enum program program, char *argv[], char *said, size_t size) __attribute__((warn_unused_result));

#endif
