#include "worker/agent_output.h"

#include "worker/memory_watch.h"
#include "worker/timer.h"

static void on_stderr_timer(evutil_socket_t fd, short what, void *context);

void agent_output_init(struct agent_output *output, struct event_base *base, size_t line_limit_bytes,
                       const struct agent_output_handlers *handlers)
{
    output->base = base;
    output->handlers = *handlers;
    line_buffer_init(&output->lines, line_limit_bytes);
    agent_report_init(&output->report);
}

void agent_output_release(struct agent_output *output)
{
    line_buffer_release(&output->lines);
    stderr_text_release(&output->errors);
    agent_report_release(&output->report);
    if (output->stderr_timer != NULL)
        event_free(output->stderr_timer);
}

void agent_output_listen(struct agent_output *output, struct event_stream *stream)
{
    output->stream = stream;
}

/* Without a listener that was there nothing of it matters any more. */
static bool is_wanted(const struct agent_output *output)
{
    return !output->failed && (output->stream != NULL || output->detached);
}

static void fail(struct agent_output *output, enum run_error error, const char *message)
{
    if (output->failed)
        return;
    output->failed = true;
    output->handlers.on_failed(output->handlers.context, error, message);
}

static void put_stderr(struct agent_output *output, json_t *(*take)(struct stderr_text *text))
{
    unsigned long refusals = memory_refusals();
    json_t *event = take(&output->errors);

    if (output->stream != NULL && memory_refusals() != refusals) {
        fail(output, RUN_ERROR_INTERNAL, "out of memory");
    } else if (output->stream != NULL && event != NULL) {
        event_stream_put_json(output->stream, event);
        return;
    }
    json_decref(event);
}

static void flush_stream(const struct agent_output *output)
{
    if (output->stream != NULL)
        event_stream_flush(output->stream);
}

static bool is_blank_line(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r' && line[i] != '\v' && line[i] != '\f')
            return false;
    }
    return true;
}

/* The last line, which has no end: one event. */
static bool on_rest(void *context, const char *line, size_t length)
{
    struct agent_output *output = context;
    bool ended = output->report.ending != AGENT_NOT_ENDED;
    enum agent_line kind;

    if (output->failed || is_blank_line(line, length))
        return true;
    if (output->stream != NULL)
        event_stream_put_line(output->stream, line, length);
    kind = agent_report_read(&output->report, line, length);
    if (kind != AGENT_LINE_PLAIN)
        output->handlers.on_report(output->handlers.context);
    if (kind == AGENT_LINE_TERMINAL && !ended)
        output->handlers.on_terminal(output->handlers.context);
    return true;
}

/* One line of stdout: one event. A CR before the LF belongs to the line's end. */
static bool on_line(void *context, const char *line, size_t length)
{
    return on_rest(context, line, length > 0 && line[length - 1] == '\r' ? length - 1 : length);
}

static void check_lines(struct agent_output *output, enum line_result result)
{
    if (result == LINE_TOO_LONG)
        fail(output, RUN_ERROR_LINE_TOO_LONG, "a line of the agent's output is longer than line_limit");
    else if (result != LINE_OK)
        fail(output, RUN_ERROR_INTERNAL, "out of memory");
}

void agent_output_add(struct agent_output *output, bool is_stderr, const char *bytes, size_t length)
{
    if (!is_wanted(output))
        return;
    if (is_stderr) {
        if (!stderr_text_append(&output->errors, bytes, length))
            fail(output, RUN_ERROR_INTERNAL, "out of memory");
        return;
    }
    put_stderr(output, stderr_text_take_lines);
    check_lines(output, line_buffer_feed(&output->lines, bytes, length, on_line, output));
}

/* An unfinished line of stderr waits; most agents never write one. */
static void await_stderr(struct agent_output *output)
{
    if (output->stderr_timer == NULL &&
        (output->stderr_timer = evtimer_new(output->base, on_stderr_timer, output)) == NULL)
        fail(output, RUN_ERROR_INTERNAL, "out of memory");
    else if (!event_pending(output->stderr_timer, EV_TIMEOUT, NULL))
        timer_start(output->stderr_timer, STDERR_WAIT_MS);
}

void agent_output_flush(struct agent_output *output)
{
    if (!is_wanted(output))
        return;
    put_stderr(output, stderr_text_take_lines);
    put_stderr(output, stderr_text_take_lines); /* the rest, if it is too long to wait */
    if (output->errors.length > 0)
        await_stderr(output);
    flush_stream(output);
}

void agent_output_finish(struct agent_output *output)
{
    if (!is_wanted(output))
        return;
    put_stderr(output, stderr_text_take_all);
    check_lines(output, line_buffer_finish(&output->lines, on_rest, output));
    flush_stream(output);
    agent_output_stop(output);
}

void agent_output_stop(struct agent_output *output)
{
    if (output->stderr_timer != NULL)
        event_del(output->stderr_timer);
}

static void on_stderr_timer(evutil_socket_t fd, short what, void *context)
{
    struct agent_output *output = context;

    (void)fd;
    (void)what;
    put_stderr(output, stderr_text_take_rest);
    flush_stream(output);
}
