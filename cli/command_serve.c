/*
 * ds serve and ds check: the server of this installation under its short name.
 */
#include "cli/ds.h"
#include "cli/options.h"
#include "cli/program.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_HOST    "127.0.0.1"
#define DEFAULT_PORT    "8000"
#define BIND_ITEM_BYTES 512

static const char serve_usage[] = "usage: ds serve [--host HOST] [--port PORT] [--SETTING VALUE]...\n"
                                  "Runs the server: `sandstorm --bind HOST:PORT` with the other settings as given\n"
                                  "(`sandstorm --help` lists them).\n"
                                  "\n"
                                  "  --host HOST         the address to listen on (default " DEFAULT_HOST ")\n"
                                  "  --port PORT         the port to listen on (default " DEFAULT_PORT ")\n";

static const char check_usage[] =
    "usage: ds check [DIR] [--SETTING VALUE]...\n"
    "Checks the configuration that a server in DIR (default: here) would have, and prints\n"
    "it: `sandstorm --check`.\n";

/* Options are passed on with their values, which getopt_long(3) cannot do. */
static bool wants_help(int argc, char *argv[])
{
    return argc > 1 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0);
}

/*
 * When argv[*index] is `option VALUE` or `option=VALUE`, takes it: *value is the value (NULL when it lacks), *index its
 * last word.
 */
static bool take_option(const char *option, int argc, char *argv[], int *index, const char **value)
{
    size_t length = strlen(option);

    if (strncmp(argv[*index], option, length) != 0)
        return false;
    if (argv[*index][length] == '=') {
        *value = argv[*index] + length + 1;
        return true;
    }
    if (argv[*index][length] != '\0')
        return false;
    *value = *index + 1 < argc ? argv[++*index] : NULL;
    return true;
}

/* Without --host and --port nothing is bound by us: the server's own default is the same, and its file may differ. */
static int serve(int argc, char *argv[], char *words[])
{
    char bind_option[] = "--bind", bind_item[BIND_ITEM_BYTES];
    const char *host = DEFAULT_HOST, *port = DEFAULT_PORT;
    bool named = false;
    int used = 1;

    for (int i = 1; i < argc; i++) {
        if (take_option("--host", argc, argv, &i, &host) || take_option("--port", argc, argv, &i, &port))
            named = true;
        else
            words[used++] = argv[i];
        if (host == NULL || port == NULL)
            return options_reject(argv[0], "option needs a value: %s", host == NULL ? "--host" : "--port");
    }
    if (named) {
        bool bare_v6 = strchr(host, ':') != NULL && *host != '[';

        snprintf(bind_item, sizeof bind_item, bare_v6 ? "[%s]:%s" : "%s:%s", host, port);
        words[used++] = bind_option;
        words[used++] = bind_item;
    }
    return program_become(argv[0], PROGRAM_SERVER, words);
}

int command_serve(int argc, char *argv[])
{
    char **words;
    int code = DS_FAILED;

    if (wants_help(argc, argv)) {
        fputs(serve_usage, stdout);
        return DS_OK;
    }
    words = calloc((size_t)argc + 3, sizeof *words);
    if (words != NULL)
        code = serve(argc, argv, words);
    free(words);
    return code;
}

int command_check(int argc, char *argv[])
{
    char check_option[] = "--check", dir_option[] = "--project-dir";
    char **words;
    int used = 1, next = 1, code = DS_FAILED;

    if (wants_help(argc, argv)) {
        fputs(check_usage, stdout);
        return DS_OK;
    }
    words = calloc((size_t)argc + 3, sizeof *words);
    if (words == NULL)
        return DS_FAILED;
    words[used++] = check_option;
    if (argc > 1 && *argv[1] != '-') {
        words[used++] = dir_option;
        words[used++] = argv[next++];
    }
    while (next < argc)
        words[used++] = argv[next++];
    code = program_become(argv[0], PROGRAM_SERVER, words);
    free(words);
    return code;
}
