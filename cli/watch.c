#include "cli/watch.h"

#include "cli/ds.h"
#include "cli/interrupt.h"
#include "cli/terminal.h"

#define INTERVAL_MS 2000

int watch(const char *command, bool again, int (*show)(void *context), void *context)
{
    struct terminal out;
    bool written, has_begun = false;
    int code;

    terminal_open(&out, stdout);
    do {
        if (again)
            terminal_clear(&out);
        code = show(context);
        written = terminal_close(command, stdout);
        has_begun = has_begun || code == DS_OK;
    } while (again && written && has_begun && !interrupt_wait(INTERVAL_MS));
    if (interrupt_signal() != 0)
        return interrupt_exit();
    return written ? code : DS_FAILED;
}
