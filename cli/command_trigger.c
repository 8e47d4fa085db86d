/*
 * ds trigger: what starts runs besides clients: the triggers of a project, shown, and tried against a server.
 */
#include "cli/ds.h"
#include "cli/options.h"
#include "cli/trigger.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: ds trigger list [-n COUNT] [--json] [--project-dir DIR]\n"
    "       ds trigger test NAME [-d JSON] [--json] [--project-dir DIR]\n"
    "list shows the triggers of sandstorm.json, and when those with a schedule fire next\n"
    "(UTC); it needs no server. test tries one against the server: it posts to the path of a\n"
    "webhook with its secret and follows the run to its end; of a schedule it runs the prompt\n"
    "as `ds PROMPT` does.\n"
    "\n"
    "  -d, --data JSON     what the webhook gets; - reads it from standard input (default {})\n"
    "  -n, --next COUNT    so many instants of each schedule, 1 to 100 (default 1)\n"
    "      --json          print JSON: of test the run's record, of a schedule the events\n"
    "      --project-dir DIR  where sandstorm.json and .env are (default: here)\n" OPTIONS_SERVER_TEXT;

int command_trigger(int argc, char *argv[])
{
    static const struct {
        const char *verb;
        int (*run)(int argc, char *argv[], const char *usage);
    } verbs[] = {{"list", trigger_list}, {"test", trigger_test}};

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            fputs(usage, stdout);
            return DS_OK;
        }
    }
    for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof *verbs; i++) {
        if (strcmp(argv[1], verbs[i].verb) == 0) {
            argv[1] = argv[0]; /* for messages */
            return verbs[i].run(argc - 1, argv + 1, usage);
        }
    }
    return options_reject(argv[0], "list or test?");
}
