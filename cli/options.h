/*
 * options: what the command lines of ds have in common. Each command has a table for getopt_long(3); the options of
 * those that ask a server are a part of it.
 */
#ifndef CLI_OPTIONS_H
#define CLI_OPTIONS_H

#include <getopt.h>
#include <stdbool.h>

/* Codes of long options; a command's own begin at OPTION_OWN. */
enum option_code {
    OPTION_HELP = 1000,
    OPTION_SERVER,
    OPTION_API_KEY,
    OPTION_CA_FILE,
    OPTION_CERT,
    OPTION_KEY,
    OPTION_OWN,
};

/* Where the server is; NULL: the environment says it, else the default does (endpoint.h). */
struct server_options {
    const char *server;
    char *api_key; /* in the command line, where it is wiped once it was read */
    const char *ca_file;
    const char *cert;
    const char *key;
};

/* For struct option tables. */
#define OPTIONS_HELP                                                                                                   \
    {                                                                                                                  \
        "help", no_argument, 0, OPTION_HELP                                                                            \
    }
#define OPTIONS_SERVER                                                                                                 \
    OPTIONS_HELP, {"server", required_argument, 0, OPTION_SERVER}, {"api-key", required_argument, 0, OPTION_API_KEY},  \
        {"ca-file", required_argument, 0, OPTION_CA_FILE}, {"cert", required_argument, 0, OPTION_CERT},                \
    {                                                                                                                  \
        "key", required_argument, 0, OPTION_KEY                                                                        \
    }

/* For their help texts. */
#define OPTIONS_SERVER_TEXT                                                                                            \
    "\n"                                                                                                               \
    "  --server URL        http://, https:// or unix:/path (SANDSTORM_URL;\n"                                          \
    "                      default http://localhost:8000)\n"                                                           \
    "  --api-key KEY       the server's key; better in the environment (SANDSTORM_API_KEY)\n"                          \
    "  --ca-file FILE      PEM file of the authorities a server with HTTPS is trusted by\n"                            \
    "                      (SANDSTORM_CA_FILE; default: the system's)\n"                                               \
    "  --cert FILE         PEM file of a certificate to show to it (SANDSTORM_CERT)\n"                                 \
    "  --key FILE          PEM file of its private key (SANDSTORM_KEY; default: the same)\n"

/* Takes one of OPTIONS_SERVER; false when the code is another. */
bool options_take_server(struct server_options *options, int code, char *value);

/* A whole number within bounds; false with a message when it is none. */
bool options_number(const char *command, const char *option, const char *text, long min, long max, long *value)
    __attribute__((warn_unused_result));

/* Prints "ds NAME: …" and where to read more; returns DS_USAGE. */
int options_reject(const char *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a command does after getopt_long said '?', which has printed why. Returns DS_USAGE. */
int options_unknown(const char *command);

#endif
