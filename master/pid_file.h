/*
 * pid_file: tells scripts which process the master is. It is written whole once the server is ready, and removed at its
 * end. The master holds a lock on it (fcntl), as on its state directory: a file without one is a leftover, whoever has
 * its pid by now. It outlives an exec as long as fd does.
 */
#ifndef MASTER_PID_FILE_H
#define MASTER_PID_FILE_H

#include <stdbool.h>

struct pid_file {
    char *path; /* NULL: none was written */
    int fd;     /* holds the lock; -1 */
};

#define PID_FILE_NONE ((struct pid_file){.path = NULL, .fd = -1})

/* Could one be there? "" is none. Logs what is wrong. Opens nothing: whoever holds the lock may ask. */
bool pid_file_check(const char *path) __attribute__((warn_unused_result));
/* Is it absent or a leftover? Logs who has it, or that it is no pid file. Before it is written. */
bool pid_file_is_free(const char *path) __attribute__((warn_unused_result));

/* Writes it; what fails is told and done without. */
void pid_file_write(struct pid_file *file, const char *path);
/* Instead, in a process that wrote it before an exec. fd -1: it did not. */
void pid_file_adopt(struct pid_file *file, const char *path, int fd);
/* Removes it, if it is still ours. */
void pid_file_remove(struct pid_file *file);

#endif
