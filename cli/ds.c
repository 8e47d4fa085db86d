/*
 * ds: the command people type. `ds serve --host 0.0.0.0 --port 8000 ...` runs the sandstorm that stands beside it.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXIT_USAGE      2
#define DEFAULT_HOST    "127.0.0.1"
#define DEFAULT_PORT    "8000"
#define SERVER          "sandstorm"
#define BIND_ITEM_BYTES 512

static const char usage_text[] =
    "usage: ds serve [--host HOST] [--port PORT] [--SETTING VALUE]...\n"
    "       ds --help | --version\n"
    "\n"
    "  serve    run the server: `sandstorm --bind HOST:PORT` with the other settings as given\n"
    "           (default host " DEFAULT_HOST ", port " DEFAULT_PORT "; `sandstorm --help` lists the settings)\n";

static int usage_error(const char *what, const char *word)
{
    fprintf(stderr, "ds: %s%s%s\n%s", what, *word != '\0' ? ": " : "", word, usage_text);
    return EXIT_USAGE;
}

/*
 * When argv[*index] is `option VALUE` or `option=VALUE`, takes it: *value is the value (NULL when it lacks), *index its
 * last word. getopt_long will not do here: it cannot pass on options it does not know, with their values.
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

/* Replaces this program by the server in the same folder, else by the one in PATH. Returns only on failure. */
static int run_server(char *argv[])
{
    static const char name[] = "/" SERVER;
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof name);
    char *slash;

    if (n > 0) {
        path[n] = '\0';
        slash = strrchr(path, '/');
        memcpy(slash, name, sizeof name);
        execv(path, argv);
    }
    execvp(SERVER, argv);
    fprintf(stderr, "ds: cannot run %s, neither beside ds nor from PATH: %s\n", SERVER, strerror(errno));
    return EXIT_FAILURE;
}

/* Without --host and --port nothing is bound by us: the server's own default is the same, and its file may differ. */
static int serve(int argc, char *argv[])
{
    char server[] = SERVER, bind_option[] = "--bind", bind_item[BIND_ITEM_BYTES];
    const char *host = DEFAULT_HOST, *port = DEFAULT_PORT;
    bool named = false;
    int used = 0;
    char **words = calloc((size_t)argc + 4, sizeof *words);

    if (words == NULL) {
        fprintf(stderr, "ds: %s\n", strerror(errno));
        return EXIT_FAILURE;
    }
    words[used++] = server;
    for (int i = 0; i < argc; i++) {
        if (take_option("--host", argc, argv, &i, &host) || take_option("--port", argc, argv, &i, &port))
            named = true;
        else
            words[used++] = argv[i];
        if (host == NULL || port == NULL) {
            free(words);
            return usage_error("option needs a value", host == NULL ? "--host" : "--port");
        }
    }
    if (named) {
        bool bare_v6 = strchr(host, ':') != NULL && *host != '[';

        snprintf(bind_item, sizeof bind_item, bare_v6 ? "[%s]:%s" : "%s:%s", host, port);
        words[used++] = bind_option;
        words[used++] = bind_item;
    }
    used = run_server(words);
    free(words);
    return used;
}

int main(int argc, char *argv[])
{
    if (argc < 2)
        return usage_error("no subcommand", "");
    if (strcmp(argv[1], "serve") == 0)
        return serve(argc - 2, argv + 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        fputs(usage_text, stdout);
        return EXIT_SUCCESS;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("ds " SANDSTORM_VERSION);
        return EXIT_SUCCESS;
    }
    return usage_error("unknown subcommand", argv[1]);
}
