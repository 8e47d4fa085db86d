/*
 * api_key: who may use the control API over TCP (spec/e2b.md 0.2, 0.3, B.2). On the unix socket nobody asks: its mode
 * is the guard.
 */
#ifndef SANDBOXD_API_KEY_H
#define SANDBOXD_API_KEY_H

#include <stdbool.h>
#include <stddef.h>

/* The keys that are taken: those of a file, or all that look like one. */
struct api_keys;

/* Without a path: any key that begins with e2b_. NULL with the reason logged. */
struct api_keys *api_keys_new(const char *path) __attribute__((warn_unused_result));
void api_keys_free(struct api_keys *keys);

/* Whether they came from a file. */
bool api_keys_are_listed(const struct api_keys *keys);

/* NULL when the key (NULL: none was sent) is taken, else the message of the 401. */
const char *api_keys_refusal(const struct api_keys *keys, const char *key);

#endif
