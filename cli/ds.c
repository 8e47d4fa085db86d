/*
 * ds: the command people type: runs agents on a Sandstorm server, looks at its runs, and prepares a server of one's
 * own.
 */
#include "cli/ds.h"

#include "cli/interrupt.h"
#include "cli/options.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
    const char *name;
    const char *title; /* "ds NAME", for messages */
    const char *arguments;
    const char *summary;
    int (*run)(int argc, char *argv[]);
};

static const struct command commands[] = {
    {"query", "ds query", "PROMPT", "run an agent; `ds PROMPT` is the same", command_query},
    {"runs", "ds runs", "", "list runs", command_runs},
    {"show", "ds show", "ID", "show one run", command_show},
    {"cancel", "ds cancel", "ID...", "cancel runs", command_cancel},
    {"status", "ds status", "", "show workers, runs and limits", command_status},
    {"replay", "ds replay", "ID", "run a prompt again and compare", command_replay},
    {"doctor", "ds doctor", "", "check what runs need on this machine", command_doctor},
    {"template", "ds template", "build", "prepare what sandboxes are made from", command_template},
    {"init", "ds init", "[STARTER] [DIR]", "begin a project", command_init},
    {"add", "ds add", "NAME", "add an MCP server to sandstorm.json", command_add},
    {"trigger", "ds trigger", "list|test NAME", "show triggers, or try one", command_trigger},
    {"webhook", "ds webhook", "VERB", "register, list, delete, test E2B's events", command_webhook},
    {"serve", "ds serve", "", "start the server", command_serve},
    {"check", "ds check", "[DIR]", "check the configuration", command_check},
};

#define COMMANDS (sizeof commands / sizeof *commands)

static int print_help(void)
{
    fputs("usage: ds PROMPT [OPTION]...\n"
          "       ds COMMAND [ARGUMENT]...\n"
          "\n",
          stdout);
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-8s %-16s %s\n", commands[i].name, commands[i].arguments, commands[i].summary);
    fputs("\n"
          "  ds COMMAND --help  tells more of one, ds --version the version\n" OPTIONS_SERVER_TEXT,
          stdout);
    return fflush(stdout) == 0 ? DS_OK : DS_FAILED;
}

static const struct command *find(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

/*
 * The index of the word that may be a command: the first one that is no option and no option's value. Options may
 * stand before it. 0: there is none.
 */
static int first_word(int argc, char *argv[])
{
    static const char *const with_value[] = {"--server", "--api-key",   "--ca-file", "--cert", "--key",
                                             "--model",  "--max-turns", "--timeout", "--file", "--output",
                                             "-m",       "-t",          "-f",        "-o"};

    for (int i = 1; i < argc; i++) {
        if (*argv[i] != '-' || argv[i][1] == '\0')
            return i;
        if (strcmp(argv[i], "--") == 0)
            return 0;
        for (size_t j = 0; j < sizeof with_value / sizeof *with_value; j++) {
            if (strcmp(argv[i], with_value[j]) == 0)
                i++;
        }
    }
    return 0;
}

/* Moves the command's word to the front of the words, and names it for its messages. */
static void take_word(char *argv[], int index, char *title)
{
    for (; index > 1; index--)
        argv[index] = argv[index - 1];
    argv[1] = title;
}

static int run(const struct command *command, int argc, char *argv[])
{
    char *title = strdup(command->title);
    int code, word = first_word(argc, argv);

    if (title == NULL || !interrupt_catch() || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fprintf(stderr, "ds: cannot start: %s\n", strerror(errno));
        free(title);
        return DS_FAILED;
    }
    if (word > 0 && strcmp(argv[word], command->name) == 0) {
        take_word(argv, word, title);
        code = command->run(argc - 1, argv + 1);
    } else {
        argv[0] = title;
        code = command->run(argc, argv);
    }
    curl_global_cleanup();
    free(title);
    return code;
}

int main(int argc, char *argv[])
{
    int word = first_word(argc, argv);
    const struct command *command = word > 0 ? find(argv[word]) : NULL;

    if (argc < 2) {
        fputs("ds: no prompt and no command\nTry 'ds --help'.\n", stderr);
        return DS_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return print_help();
    if (strcmp(argv[1], "--version") == 0) {
        puts("ds " SANDSTORM_VERSION);
        return fflush(stdout) == 0 ? DS_OK : DS_FAILED;
    }
    return run(command != NULL ? command : &commands[0], argc, argv);
}
