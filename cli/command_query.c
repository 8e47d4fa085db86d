/*
 * ds query PROMPT: runs an agent, and shows what it says.
 */
#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/request.h"
#include "cli/stream.h"

#include <stdio.h>
#include <string.h>

enum { OPTION_JSON = OPTION_OWN, OPTION_QUIET, OPTION_MAX_TURNS };

static const char usage[] = "usage: ds PROMPT [OPTION]...\n"
                            "       ds query PROMPT [OPTION]...\n"
                            "Runs an agent in a fresh sandbox and shows what it says. With - as PROMPT it is read\n"
                            "from standard input.\n"
                            "\n"
                            "  -m, --model MODEL     the agent's model\n"
                            "      --max-turns N     most turns of the agent\n"
                            "  -t, --timeout SECONDS longest time it may take, 5 to 3600\n"
                            "  -f, --file PATH       give the agent this file, UTF-8 text; may be repeated\n"
                            "  -o, --output DIR      write the agent's files below DIR\n"
                            "      --json            print events as lines of JSON\n"
                            "      --quiet           print the agent's text alone\n" OPTIONS_SERVER_TEXT "\n"
                            "The exit code is 0 after success, 1 after an error of the agent or the server, 2 for a\n"
                            "wrong command line, 130 when it was interrupted (which cancels the run).\n";

static const struct option longs[] = {{"model", required_argument, NULL, 'm'},
                                      {"max-turns", required_argument, NULL, OPTION_MAX_TURNS},
                                      {"timeout", required_argument, NULL, 't'},
                                      {"file", required_argument, NULL, 'f'},
                                      {"output", required_argument, NULL, 'o'},
                                      {"json", no_argument, NULL, OPTION_JSON},
                                      {"quiet", no_argument, NULL, OPTION_QUIET},
                                      OPTIONS_SERVER,
                                      {0}};

/* What the command line says. */
struct query {
    const char *command;
    struct request request;
    struct render_options render;
    struct server_options server;
    bool wants_help;
};

/* Takes one option. False after a message. */
static bool take(struct query *query, int code, char *value)
{
    switch (code) {
    case 'm':
        query->request.model = value;
        return true;
    case OPTION_MAX_TURNS:
        return options_number(query->command, "--max-turns", value, 1, REQUEST_TURNS_MAX, &query->request.max_turns);
    case 't':
        return options_number(query->command, "--timeout", value, REQUEST_TIMEOUT_MIN_S, REQUEST_TIMEOUT_MAX_S,
                              &query->request.timeout_s);
    case 'f':
        return request_add_file(&query->request, query->command, value);
    case 'o':
        query->render.output_dir = value;
        return true;
    case OPTION_JSON:
        return query->render.json = true;
    case OPTION_QUIET:
        return query->render.quiet = true;
    case OPTION_HELP:
        return query->wants_help = true;
    default:
        return options_take_server(&query->server, code, value);
    }
}

/* The one word that is no option. */
static bool take_prompt(struct query *query, int argc, char *argv[])
{
    if (argc - optind == 1)
        return request_set_prompt(&query->request, query->command, argv[optind]);
    (void)options_reject(query->command,
                         argc == optind ? "no prompt" : "more than one word: put the prompt into quotes");
    return false;
}

static int ask(const struct query *query)
{
    struct endpoint endpoint;
    json_t *body = request_body(&query->request);
    int code = DS_USAGE;

    if (body == NULL)
        fprintf(stderr, "%s: out of memory\n", query->command);
    else if (endpoint_open(&endpoint, query->command, &query->server))
        code = stream_run(&endpoint, body, &query->render, NULL);
    if (body != NULL)
        endpoint_close(&endpoint);
    json_decref(body);
    return code;
}

int command_query(int argc, char *argv[])
{
    struct query query = {.command = argv[0]};
    int option, code = DS_USAGE;
    bool good = true;

    while (good && (option = getopt_long(argc, argv, "m:t:f:o:", longs, NULL)) != -1) {
        if (option == '?') {
            (void)options_unknown(query.command);
            good = false;
        } else {
            good = take(&query, option, optarg);
        }
    }
    if (good && query.wants_help) {
        fputs(usage, stdout);
        code = DS_OK;
    } else if (good && take_prompt(&query, argc, argv)) {
        code = ask(&query);
    }
    request_release(&query.request);
    return interrupt_signal() != 0 && code == DS_USAGE ? interrupt_exit() : code; /* while the prompt was read */
}
