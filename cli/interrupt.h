/*
 * interrupt: INT, TERM and HUP of someone who wants ds to end. The first one is a wish that the command sees; the
 * second one ends the process at once. Neither restarts a system call.
 */
#ifndef CLI_INTERRUPT_H
#define CLI_INTERRUPT_H

#include <stdbool.h>

/* From now on they are caught. False with errno. */
bool interrupt_catch(void) __attribute__((warn_unused_result));

/* The signal that came, 0 for none. */
int interrupt_signal(void);

/* Readable once a signal came; for poll(2). */
int interrupt_fd(void);

/* Waits; true at once when a signal came before or meanwhile. */
bool interrupt_wait(int milliseconds) __attribute__((warn_unused_result));

/* As a shell reports a death by that signal. */
int interrupt_exit(void);

#endif
