/*
 * state_dir: the directory of one sandboxd (--state-dir): a lock, so that two do not share it, and the key that SDKs
 * use when the user gave none.
 */
#ifndef SANDBOXD_STATE_DIR_H
#define SANDBOXD_STATE_DIR_H

/* Makes it if it is missing, and locks it until the process ends; -1 with the reason logged, else its descriptor. */
int state_dir_open(const char *path) __attribute__((warn_unused_result));

/* The path of the file with its key, made with a random one if it is missing; allocated. NULL with the reason logged.
 */
char *state_dir_key_file(const char *path, int dir_fd) __attribute__((warn_unused_result));

#endif
