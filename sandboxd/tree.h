/* tree: whole folders of files. Symbolic links are never followed. */
#ifndef SANDBOXD_TREE_H
#define SANDBOXD_TREE_H

#include <stdbool.h>

/* Removes a folder or file and all below it; one that is missing is no error. false with the reason printed. */
bool tree_remove(const char *path) __attribute__((warn_unused_result));

/*
 * Makes all of it what every uid can read and only the owner can write: modes a+r, a+x where one may execute, no set-id
 * bits; the owner is who runs this. false with the reason printed, also for what is neither file, folder nor link.
 */
bool tree_seal(const char *path) __attribute__((warn_unused_result));

#endif
