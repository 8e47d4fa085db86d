/* near_program: where files of ours stand, seen from the program that runs. */
#ifndef COMMON_NEAR_PROGRAM_H
#define COMMON_NEAR_PROGRAM_H

/*
 * The first of these paths that exists, relative ones seen from the program's folder: beside it in a build tree, else
 * where `make install` puts things. NULL-terminated. "" when none exists, NULL when memory is short; to be freed.
 */
char *near_program(const char *const *candidates) __attribute__((warn_unused_result));

#endif
