/* program_run: another program, run to its end, while a template is built. */
#ifndef SANDBOXD_PROGRAM_RUN_H
#define SANDBOXD_PROGRAM_RUN_H

#include <stdbool.h>

/*
 * From here on HUP, INT and TERM end the program that runs and make program_run() fail, now and later, instead of
 * ending this process: what was begun can be cleaned up.
 */
void program_run_catch_signals(void);

/* Whether one of them has come. */
bool program_run_was_interrupted(void) __attribute__((warn_unused_result));

/*
 * Runs argv[0], looked for in PATH, in a folder (NULL: here), without a shell and without input; what it prints goes to
 * standard error. false, with the reason printed, when it cannot be run, fails, or a signal came.
 */
bool program_run(const char *const *argv, const char *folder) __attribute__((warn_unused_result));

#endif
