#include "cli/watch.h"

#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#define INTERVAL_MS 2000

/* One view. Another exit code than success ends all. */
static int show_once(const char *command, const struct terminal *out, bool again, int (*show)(void *context),
                     void *context)
{
    int code;

    if (again)
        terminal_clear(out);
    code = show(context);
    if (!terminal_close(command, stdout))
        return DS_FAILED;
    return code;
}

int watch(const char *command, bool again, int (*show)(void *context), void *context)
{
    struct terminal out;
    int code;

    terminal_open(&out, stdout);
    code = show_once(command, &out, again, show, context);
    while (again && code == DS_OK && !interrupt_wait(INTERVAL_MS))
        code = show_once(command, &out, again, show, context);
    return interrupt_signal() != 0 ? interrupt_exit() : code;
}
