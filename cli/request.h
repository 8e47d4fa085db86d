/* request: the body of POST /query (http-api.md 3) as the command line gives it. */
#ifndef CLI_REQUEST_H
#define CLI_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* http-api.md 3.2, 3.4. */
#define REQUEST_TIMEOUT_MIN_S   5
#define REQUEST_TIMEOUT_MAX_S   3600
#define REQUEST_TURNS_MAX       1000000
#define REQUEST_FILES_MAX       20
#define REQUEST_FILES_MAX_BYTES 10000000
#define REQUEST_PROMPT_MAX      4000000 /* bytes: a million characters of four */

struct request {
    json_t *prompt; /* a string */
    const char *model;
    long max_turns; /* 0: not said */
    long timeout_s; /* 0: not said */
    json_t *files;  /* NULL, or name -> text */
};

/* The text itself, or with "-" what standard input holds. False after a message. */
bool request_set_prompt(struct request *request, const char *command, const char *text)
    __attribute__((warn_unused_result));

/* All of standard input, with a NUL behind it. NULL after a message, or an interruption. To be freed. */
char *request_read_input(const char *command, size_t *length) __attribute__((warn_unused_result));

/*
 * A file by its path, which is its name in the sandbox if it is relative and does not lead out of it; else its last
 * part is. False after a message.
 */
bool request_add_file(struct request *request, const char *command, const char *path)
    __attribute__((warn_unused_result));

/* NULL for lack of memory. */
json_t *request_body(const struct request *request) __attribute__((warn_unused_result));
void request_release(struct request *request);

#endif
