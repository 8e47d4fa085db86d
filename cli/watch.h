/* watch: the same view again and again, until a signal comes. */
#ifndef CLI_WATCH_H
#define CLI_WATCH_H

#include <stdbool.h>

/*
 * Calls show() once, or every two seconds on a cleared screen. Once it was a success it may fail in between, as while a
 * server restarts. Returns an exit code, as show() does.
 */
int watch(const char *command, bool again, int (*show)(void *context), void *context)
    __attribute__((warn_unused_result));

#endif
