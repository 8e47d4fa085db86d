/* process_input: what is written to a process, its stdin or its terminal. */
#include "sandboxd/process_internal.h"

#include "common/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Takes the oldest input off and tells its owner. */
static void input_finish(struct process *process, enum process_written_result result, const char *error)
{
    struct process_input *input = STAILQ_FIRST(&process->inputs);

    STAILQ_REMOVE_HEAD(&process->inputs, next);
    process->input_bytes -= input->length;
    input->written(input->arg, result, error);
    free(input);
}

void process_input_drop(struct process *process, const char *reason)
{
    while (!STAILQ_EMPTY(&process->inputs))
        input_finish(process, reason == NULL ? PROCESS_WRITE_GONE : PROCESS_NOT_WRITTEN, reason);
    if (process->writable != NULL)
        event_free(process->writable);
    process->writable = NULL;
    if (process->input_fd >= 0)
        close(process->input_fd);
    process->input_fd = -1;
}

/* Writes what waits, as far as the pipe takes it. */
static void write_inputs(struct process *process)
{
    struct process_input *input;

    while ((input = STAILQ_FIRST(&process->inputs)) != NULL) {
        ssize_t put =
            input->length == 0 ? 0 : write(process->input_fd, input->bytes + input->done, input->length - input->done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EAGAIN) {
            if (event_add(process->writable, NULL) < 0)
                log_panic("out of memory");
            return;
        }
        if (put < 0) { /* nobody reads it any more */
            input_finish(process, PROCESS_NOT_WRITTEN, errno == EPIPE ? "write |1: broken pipe" : strerror(errno));
            continue;
        }
        input->done += (size_t)put;
        if (input->done == input->length)
            input_finish(process, PROCESS_WRITTEN, NULL);
    }
    if (process->input_closing)
        process_input_drop(process, NULL);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    write_inputs(arg);
}

bool process_has_pty(const struct process *process)
{
    return process->has_pty;
}

enum process_write_result process_write(struct process *process, const void *bytes, size_t length,
                                        process_written written, void *arg)
{
    struct process_input *input;

    if (process->input_fd < 0 || process->input_closing)
        return PROCESS_WRITE_CLOSED;
    if (process->input_bytes > PROCESS_INPUT_MAX_BYTES)
        return PROCESS_WRITE_FULL;
    if (process->writable == NULL)
        process->writable = event_new(process->base, process->input_fd, EV_WRITE, on_writable, process);
    input = malloc(sizeof *input + length);
    if (process->writable == NULL || input == NULL) {
        free(input);
        return PROCESS_WRITE_FULL;
    }
    *input = (struct process_input){.written = written, .arg = arg, .length = length};
    memcpy(input->bytes, bytes, length);
    STAILQ_INSERT_TAIL(&process->inputs, input, next);
    process->input_bytes += length;
    if (STAILQ_FIRST(&process->inputs) == input)
        write_inputs(process);
    return PROCESS_WRITE_QUEUED;
}

void process_close_stdin(struct process *process)
{
    if (process->input_fd < 0)
        return;
    if (STAILQ_EMPTY(&process->inputs))
        process_input_drop(process, NULL);
    else
        process->input_closing = true;
}

bool process_resize(struct process *process, const struct process_size *size)
{
    const struct winsize window = {.ws_col = size->cols, .ws_row = size->rows};

    return ioctl(process->input_fd, TIOCSWINSZ, &window) == 0;
}
