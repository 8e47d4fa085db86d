#include "cli/ask.h"

#include "cli/ds.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool ask_take(struct ask *ask, int code, char *value)
{
    switch (code) {
    case OPTION_ASK_JSON:
        return ask->json = true;
    case OPTION_ASK_WATCH:
        return ask->again = true;
    default:
        return options_take_server(&ask->server, code, value);
    }
}

bool ask_open(struct ask *ask, int argc, char *argv[], const struct option *longs,
              bool (*take)(void *context, int code, char *value), void *context, int *code)
{
    int option;

    ask->command = argv[0];
    *code = DS_USAGE;
    while ((option = getopt_long(argc, argv, ask->shorts != NULL ? ask->shorts : "", longs, NULL)) != -1) {
        if (option == '?') {
            (void)options_unknown(ask->command);
            return false;
        }
        if (option == OPTION_HELP) {
            fputs(ask->usage, stdout);
            *code = DS_OK;
            return false;
        }
        if (!ask_take(ask, option, optarg) && (take == NULL || !take(context, option, optarg)))
            return false;
    }
    if (endpoint_open(&ask->endpoint, ask->command, &ask->server))
        return true;
    ask_close(ask);
    return false;
}

void ask_close(struct ask *ask)
{
    endpoint_close(&ask->endpoint);
}

void ask_print_json(const struct ask *ask, const json_t *json)
{
    char *text = json_dumps(json, ask->again ? JSON_COMPACT : JSON_INDENT(2));
    struct terminal out;

    terminal_open(&out, stdout);
    if (text != NULL)
        terminal_text(&out, text, strlen(text));
    fputc('\n', stdout);
    free(text);
}
