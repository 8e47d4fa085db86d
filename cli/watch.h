/* watch: the same view again and again, until a signal comes. */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <stdbool.h>

/*
 * Calls show() once, or every two seconds on a cleared screen; its exit code ends it when it is no success. Returns an
 * exit code.
 */
int watch(const char *command, bool again, int (*show)(void *context), void *context)
    __attribute__((warn_unused_result));

#endif
