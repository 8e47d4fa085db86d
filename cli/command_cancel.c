/*
 * ds cancel ID...: ends runs.
 */
#include "cli/ask.h"
#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#include <stdio.h>
#include <stdlib.h>

static const char usage[] = "usage: ds cancel ID...\n"
                            "Cancels runs. One that has been cancelled before is cancelled; one that has ended\n"
                            "otherwise is an error.\n" OPTIONS_SERVER_TEXT;

static const struct option longs[] = {OPTIONS_SERVER, {0}};

static int cancel(const struct ask *ask, const char *id)
{
    char *path = http_run_path(id, "/cancel");
    int code = DS_FAILED;
    json_t *answer = path != NULL ? http_json(&ask->endpoint, "POST", path, &code) : NULL;

    free(path);
    if (answer == NULL) {
        if (code == DS_FAILED)
            fprintf(stderr, "%s: not cancelled: %s\n", ask->command, id);
        return code;
    }
    json_decref(answer);
    printf("%s cancelled\n", id);
    return DS_OK;
}

int command_cancel(int argc, char *argv[])
{
    struct ask ask = {.usage = usage};
    int code;

    if (!ask_open(&ask, argc, argv, longs, NULL, NULL, &code))
        return code;
    code = optind < argc ? DS_OK : options_reject(ask.command, "which run?");
    for (; optind < argc && interrupt_signal() == 0; optind++) {
        int result = cancel(&ask, argv[optind]);

        if (result != DS_OK)
            code = result;
    }
    ask_close(&ask);
    return terminal_close(ask.command, stdout) ? code : DS_FAILED;
}
