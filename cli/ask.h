/*
 * ask: the commands that ask a server and print its JSON have this in common: --json, --watch, and the options of the
 * server.
 */
#ifndef CLI_ASK_H
#define CLI_ASK_H

#include "cli/http.h"

enum { OPTION_ASK_JSON = OPTION_OWN, OPTION_ASK_WATCH, OPTION_ASK_OWN };

struct ask {
    const char *command;
    const char *usage;
    const char *shorts; /* short options, as getopt_long(3) wants them; NULL: none */
    struct server_options server;
    struct endpoint endpoint;
    bool json;
    bool again; /* --watch */
};

/* Takes an option that all of them have; false when the code is another. */
bool ask_take(struct ask *ask, int code, char *value);

/*
 * Reads the options, those of its own through take() (NULL: it has none), which says false after a message. False with
 * *code when the command is to end: help was wanted, or the command line is wrong. What is left begins at optind. The
 * endpoint is open then.
 */
bool ask_open(struct ask *ask, int argc, char *argv[], const struct option *longs,
              bool (*take)(void *context, int code, char *value), void *context, int *code)
    __attribute__((warn_unused_result));
void ask_close(struct ask *ask);

/* JSON on standard output: indented, or a line of it when it is one of many. */
void ask_print_json(const struct ask *ask, const json_t *json);

#endif
