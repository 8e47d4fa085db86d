/* options: the command line of sandboxd. */
#ifndef SANDBOXD_OPTIONS_H
#define SANDBOXD_OPTIONS_H

#include "common/log.h"
#include "sandboxd/endpoint.h"
#include "sandboxd/jail.h"
#include "sandboxd/listen.h"

#include <stdbool.h>

struct options {
    const char *socket_path; /* NULL: inherited, or none */
    struct listen_address listen;
    const char *api_key_file; /* NULL: the one in the state directory; without that, any key will do */
    const char *state_dir;    /* or NULL */
    const char *template_dir; /* NULL: only the template "base" */
    const char *init_path;    /* NULL: beside this program */
    struct network network;
    struct jail_limits limits;
    unsigned max_sandboxes;
    int ready_fd; /* -1: nobody waits */
    int owner_fd; /* a pipe whose other ends its owners hold; -1: nobody's */
    bool check;
    bool die_with_parent;
    enum log_level log_level;
};

enum options_result {
    OPTIONS_RUN,
    OPTIONS_HELP, /* the help was printed: exit 0 */
    OPTIONS_USAGE /* a message was printed: exit 2 */
};

enum options_result options_parse(struct options *options, int argc, char **argv) __attribute__((warn_unused_result));

#endif
